// A function without a body is accepted in a package that has an assembly file.
