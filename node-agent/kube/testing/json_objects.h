// Objects as an API server writes them, for tests.
#pragma once

#include <string>

namespace vsocket::kube::testing {

inline std::string Metadata(const std::string& name, const std::string& version, const std::string& more = "") {
  return R"("metadata":{"name":")" + name + R"(","namespace":"default","uid":"uid-)" + name + R"(","resourceVersion":")" + version + "\"" +
         (more.empty() ? "" : "," + more) + "}";
}

// `more` of the metadata: "\"labels\":{}".
inline std::string PodJson(const std::string& name, const std::string& version, const std::string& ip, const std::string& more = "",
                           const std::string& phase = "Running") {
  return "{" + Metadata(name, version, more) + R"(,"spec":{"nodeName":"n1","containers":[{"name":"c","ports":[{"containerPort":80}]}]},)" +
         R"("status":{"phase":")" + phase + R"(","podIP":")" + ip + R"(","podIPs":[{"ip":")" + ip + R"("}]}})";
}

// `spec`: "\"podSelector\":{}".
inline std::string PolicyJson(const std::string& name, const std::string& version, const std::string& spec) {
  return "{" + Metadata(name, version) + R"(,"spec":{)" + spec + "}}";
}

inline std::string NamespaceJson(const std::string& name, const std::string& version, const std::string& labels = "") {
  return R"({"metadata":{"name":")" + name + R"(","uid":"uid-)" + name + R"(","resourceVersion":")" + version + R"(","labels":{)" + labels +
         "}}}";
}

inline std::string EventJson(const std::string& type, const std::string& object) {
  return R"({"type":")" + type + R"(","object":)" + object + "}\n";
}

inline std::string ListJson(const std::string& version, const std::string& items, const std::string& token = "") {
  return R"({"kind":"List","metadata":{"resourceVersion":")" + version + "\"" + (token.empty() ? "" : R"(,"continue":")" + token + "\"") +
         R"(},"items":[)" + items + "]}";
}

}  // namespace vsocket::kube::testing
