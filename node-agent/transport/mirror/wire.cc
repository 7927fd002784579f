#include "node-agent/transport/mirror/wire.h"

namespace vsocket::transport {

std::size_t EncodeControl(ControlMessage& message, std::span<std::byte, kControlBytes> to) {
  message.header.magic = kWireMagic;
  message.header.version = kWireVersion;
  message.header.reserved = 0;
  const std::size_t records = message.header.records * sizeof(Record);
  std::memcpy(to.data(), &message.header, sizeof(ControlHeader));
  std::memcpy(to.data() + sizeof(ControlHeader), message.records.data(), records);
  return sizeof(ControlHeader) + records;
}

bool DecodeControl(std::span<const std::byte> from, ControlMessage* message) {
  if (from.size() < sizeof(ControlHeader) || from.size() > kControlBytes) return false;
  std::memcpy(&message->header, from.data(), sizeof(ControlHeader));
  const ControlHeader& header = message->header;
  if (header.magic != kWireMagic || header.version != kWireVersion || header.records > kMaxRecords) return false;
  if (from.size() != sizeof(ControlHeader) + header.records * sizeof(Record)) return false;
  for (std::size_t i = 0; i < header.records; ++i) {
    Record& record = message->records[i];
    std::memcpy(&record, from.data() + sizeof(ControlHeader) + i * sizeof(Record), sizeof(Record));
    const auto type = static_cast<std::uint16_t>(record.type);
    if (type == 0 || type > kLastRecordType || record.connection >= kMaxConnections) return false;
  }
  return true;
}

}  // namespace vsocket::transport
