#include "node-agent/enforce/service_rules.h"

#include <gtest/gtest.h>

namespace vsocket::enforce {
namespace {

using model::Protocol;

model::IpAddress Ip(const char* text) {
  return model::IpAddress::Parse(text).value();
}

model::Service Web() {
  return {"shop", "web", {Ip("10.96.0.1"), Ip("fd96::1")}, {{"http", 80, Protocol::kTcp}, {"dns", 53, Protocol::kUdp}}};
}

model::Endpoint At(const char* address, bool ready = true, bool serving = true) {
  return {{Ip(address)}, "", ready, serving, !ready};
}

model::EndpointSlice Slice(std::vector<model::Endpoint> endpoints) {
  return {"shop", "web-1", "web", {{"http", 8080, Protocol::kTcp}, {"dns", 5353, Protocol::kUdp}}, std::move(endpoints)};
}

model::AllowList To(std::vector<model::AllowEntry> entries) {
  model::AllowList list;
  list.egress.isolated = true;
  list.egress.entries = std::move(entries);
  return list;
}

model::AllowEntry One(const char* address, std::uint16_t port) {
  return {{Ip(address), Ip(address)}, Protocol::kTcp, port, port};
}

TEST(ServiceTable, BackendsByNameProtocolAndFamily) {
  model::EndpointSlice other = Slice({At("10.1.0.9")});
  other.ns = "elsewhere";
  const model::ServiceTable table(
      {Web()}, {Slice({At("10.1.0.1"), At("10.1.0.2", false, true), At("10.1.0.3", false, false)}), Slice({At("fd00::1")}), other});
  ASSERT_EQ(table.Entries().size(), 4U);
  const auto* http = table.Find({Ip("10.1.0.7"), Ip("10.96.0.1"), 80, Protocol::kTcp});
  ASSERT_NE(http, nullptr);
  EXPECT_EQ(http->service, "shop/web");
  // The one that still serves may be chosen when none is ready.
  EXPECT_EQ(http->backends, (std::vector<model::ServiceBackend>{{Ip("10.1.0.1"), 8080}, {Ip("10.1.0.2"), 8080}}));
  EXPECT_EQ(table.Find({Ip("fd00::7"), Ip("fd96::1"), 53, Protocol::kUdp})->backends,
            (std::vector<model::ServiceBackend>{{Ip("fd00::1"), 5353}}));
  EXPECT_EQ(table.Find({Ip("10.1.0.7"), Ip("10.96.0.1"), 80, Protocol::kUdp}), nullptr);
  EXPECT_EQ(table.Addresses(), (std::vector<model::IpAddress>{Ip("fd96::1"), Ip("10.96.0.1")}));
}

TEST(JudgeServices, OpenWhenEveryBackendIsAllowed) {
  const model::ServiceTable table({Web()}, {Slice({At("10.1.0.1"), At("10.1.0.2")})});
  auto verdicts = JudgeServices(To({One("10.1.0.1", 8080), One("10.1.0.2", 8080)}), table);
  EXPECT_EQ(verdicts.rules.entries, std::vector<model::AllowEntry>{One("10.96.0.1", 80)});
  EXPECT_TRUE(verdicts.mixed.empty());
  EXPECT_EQ(verdicts.rules.addresses.size(), 2U);
  // A range, every protocol.
  verdicts = JudgeServices(To({{{Ip("10.1.0.0"), Ip("10.1.0.255")}, {}, 0, 65535}}), table);
  EXPECT_EQ(verdicts.rules.entries.size(), 2U);
}

TEST(JudgeServices, ClosedAndSaidWhenOnlySomeAre) {
  const model::ServiceTable table({Web()}, {Slice({At("10.1.0.1"), At("10.1.0.2")})});
  const auto verdicts = JudgeServices(To({One("10.1.0.1", 8080)}), table);
  EXPECT_TRUE(verdicts.rules.entries.empty());
  EXPECT_EQ(verdicts.mixed, std::vector<std::string>{"shop/web port 80/TCP: backend 10.1.0.2 port 8080 is not allowed, and 1 of 2 are"});
}

TEST(JudgeServices, TheServicesOwnPortAndAddressMeanNothing) {
  const model::ServiceTable table({Web()}, {Slice({At("10.1.0.1")})});
  EXPECT_TRUE(JudgeServices(To({One("10.96.0.1", 80), One("10.1.0.1", 80)}), table).rules.entries.empty());
  EXPECT_TRUE(JudgeServices(To({}), model::ServiceTable({Web()}, {})).rules.entries.empty());  // no backend
  EXPECT_TRUE(JudgeServices({}, table).rules.addresses.empty());                               // not isolated
}

}  // namespace
}  // namespace vsocket::enforce
