#include "shim/real.h"

#include <elf.h>
#include <link.h>

#include <cstring>

#include "shim/config.h"
#include "shim/sock.h"
#include "shim/start.h"

// Weak: a program on a glibc before 2.34 that does not link libdl has no dlsym, and a strong reference would keep it from starting.
extern "C" __attribute__((weak)) void* dlsym(void* handle, const char* name);
extern "C" __attribute__((weak)) int dl_iterate_phdr(int (*visit)(struct dl_phdr_info*, size_t, void*), void* data);

namespace vsocket::shim {

RealCalls real_calls;
std::atomic<bool> ready{false};

namespace {

void* const kNext = reinterpret_cast<void*>(-1L);  // RTLD_NEXT

struct Search {
  const char* name;
  std::uintptr_t self;  // an address inside this library, to step over it
  bool passed_self;
  void* found;
};

bool Contains(const dl_phdr_info& object, std::uintptr_t address) {
  for (int i = 0; i < object.dlpi_phnum; ++i) {
    const auto& part = object.dlpi_phdr[i];
    if (part.p_type == PT_LOAD && address - object.dlpi_addr - part.p_vaddr < part.p_memsz) return true;
  }
  return false;
}

const ElfW(Dyn) * Dynamic(const dl_phdr_info& object) {
  for (int i = 0; i < object.dlpi_phnum; ++i) {
    if (object.dlpi_phdr[i].p_type == PT_DYNAMIC) return reinterpret_cast<const ElfW(Dyn)*>(object.dlpi_addr + object.dlpi_phdr[i].p_vaddr);
  }
  return nullptr;
}

// Looks a function up in one object's GNU hash table (System V ABI, DT_GNU_HASH).
void* FindIn(const dl_phdr_info& object, const char* name) {
  const ElfW(Dyn)* dynamic = Dynamic(object);
  const std::uint32_t* hash = nullptr;
  const ElfW(Sym)* symbols = nullptr;
  const char* strings = nullptr;
  for (; dynamic != nullptr && dynamic->d_tag != DT_NULL; ++dynamic) {
    const ElfW(Addr) value = dynamic->d_un.d_ptr;
    const ElfW(Addr) address = value < object.dlpi_addr ? value + object.dlpi_addr : value;  // the vDSO keeps offsets
    if (dynamic->d_tag == DT_GNU_HASH) hash = reinterpret_cast<const std::uint32_t*>(address);
    if (dynamic->d_tag == DT_SYMTAB) symbols = reinterpret_cast<const ElfW(Sym)*>(address);
    if (dynamic->d_tag == DT_STRTAB) strings = reinterpret_cast<const char*>(address);
  }
  if (hash == nullptr || symbols == nullptr || strings == nullptr || hash[0] == 0) return nullptr;
  std::uint32_t wanted = 5381;
  for (const char* c = name; *c != '\0'; ++c) wanted = wanted * 33 + static_cast<unsigned char>(*c);
  const std::uint32_t buckets = hash[0], first = hash[1], bloom = hash[2];
  const std::uint32_t* bucket = hash + 4 + bloom * (sizeof(ElfW(Addr)) / 4);
  const std::uint32_t* chain = bucket + buckets;
  std::uint32_t index = bucket[wanted % buckets];
  if (index < first) return nullptr;
  for (;; ++index) {
    const std::uint32_t entry = chain[index - first];
    const ElfW(Sym)& symbol = symbols[index];
    if ((entry | 1) == (wanted | 1) && symbol.st_shndx != SHN_UNDEF && std::strcmp(strings + symbol.st_name, name) == 0) {
      return reinterpret_cast<void*>(object.dlpi_addr + symbol.st_value);
    }
    if (entry & 1) return nullptr;
  }
}

int Visit(dl_phdr_info* object, size_t, void* data) {
  Search& search = *static_cast<Search*>(data);
  if (Contains(*object, search.self)) {
    search.passed_self = true;
    return 0;
  }
  if (!search.passed_self) return 0;
  search.found = FindIn(*object, search.name);
  return search.found != nullptr;
}

void* FindNext(const char* name) {
  if (dlsym != nullptr) return dlsym(kNext, name);
  if (dl_iterate_phdr == nullptr) return nullptr;
  Search search{name, reinterpret_cast<std::uintptr_t>(&real_calls), false, nullptr};
  dl_iterate_phdr(Visit, &search);
  return search.found;
}

template <typename F>
void Bind(F*& pointer, const char* name) {
  pointer = reinterpret_cast<F*>(FindNext(name));
}

}  // namespace

void BindRealCalls() {
#define VSOCKET_CALL(name, result, parameters, support, note) Bind(real_calls.name, #name);
#include "shim/calls.def"
#undef VSOCKET_CALL
}

}  // namespace vsocket::shim
