#include "node-agent/kube/reflector.h"

#include <ctime>
#include <utility>

#include "node-agent/kube/field_reader.h"

namespace vsocket::kube {
namespace {

constexpr int kUnauthorized = 401, kForbidden = 403, kNotFound = 404, kGone = 410, kBadRequest = 400, kGatewayTimeout = 504;
constexpr unsigned kMostPages = 10'000;
constexpr std::chrono::seconds kHonestWatch{1};  // one that ends sooner, without an event, is a server that keeps none
constexpr std::chrono::seconds kGrace{30};       // for the server to end a watch by itself

// RFC 3986 section 2.1: what is not unreserved is percent-encoded.
std::string Encoded(std::string_view text) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
    if (plain) {
      out.push_back(c);
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += {'%', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return out;
}

std::string TimeOfDay() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[32];
  return {text, std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

std::string TextOf(const YamlNode& map, std::string_view field) {
  const YamlNode* node = map.Find(field);
  return node != nullptr && node->kind == YamlNode::Kind::kScalar ? node->scalar : std::string();
}

}  // namespace

Reflector::Reflector(Kind kind, const std::string& node_name, HttpsClient& client, Replica& replica, const ReflectorOptions& options,
                     std::uint64_t seed, std::function<Clock::time_point()> now)
    : kind_(kind),
      path_(ListPath(kind, node_name)),
      client_(client),
      replica_(replica),
      options_(options),
      now_(std::move(now)),
      random_(seed),
      backoff_(options.first_pause, options.longest_pause, seed + 1),
      due_(now_()) {
  for (const std::string_view field : OmittedFieldsOf(kind)) omitted_paths_.push_back("object." + std::string(field));
  omitted_in_events_.assign(omitted_paths_.begin(), omitted_paths_.end());
}

Clock::time_point Reflector::Due() const {
  return under_way_ ? Clock::time_point::max() : due_;
}

void Reflector::Tick() {
  if (under_way_ || now_() < due_) return;
  if (next_ == Next::kWatch) return StartWatch();
  continue_token_.clear();
  pages_ = 0;
  replica_.BeginList(kind_);
  StartPage();
}

void Reflector::StartPage() {
  misunderstood_.clear();
  page_.emplace(options_.limits);
  under_way_ = true;
  HttpRequest request;
  request.path = path_;
  if (!whole_list_) request.path += "&limit=" + std::to_string(options_.page_objects);
  if (!continue_token_.empty()) request.path += "&continue=" + Encoded(continue_token_);
  request.silence = options_.list_silence;
  request.total = options_.list_total;
  request.on_body = [this](std::string_view bytes) {
    return page_->Feed(bytes, [this](std::string_view text) { return OnItem(text); }) || Misunderstood(page_->Error());
  };
  request.on_end = [this](const HttpEnd& end) { OnPageEnd(end); };
  client_.Start(std::move(request));
}

bool Reflector::OnItem(std::string_view text) {
  auto tree = ParseJson(text, OmittedFieldsOf(kind_));
  if (!tree) return Misunderstood(tree.Error());
  auto identity = IdentityOf(**tree);
  if (!identity) return Misunderstood(identity.Error());
  return replica_.AddToList(kind_, identity.Value(), **tree) || Misunderstood("too many objects for this agent");
}

void Reflector::OnPageEnd(const HttpEnd& end) {
  under_way_ = false;
  if (!misunderstood_.empty()) return Fail(Next::kList, "an answer that makes no sense: " + misunderstood_, end);
  if (end.status == kGone && !continue_token_.empty()) {
    // The server has forgotten what the first page was taken of, because the pages took too long.
    whole_list_ = true;
    return Fail(Next::kList, end.error, end);
  }
  if (!end.Good()) return Fail(Next::kList, end.error, end);
  auto page = page_->Finish();
  if (!page) return Fail(Next::kList, "an answer that makes no sense: " + page.Error(), end);
  if (!page->continue_token.empty()) {
    if (page->continue_token == continue_token_) return Fail(Next::kList, "a list that goes round in circles", end);
    if (++pages_ >= kMostPages) return Fail(Next::kList, "a list that does not end", end);
    continue_token_ = page->continue_token;
    return StartPage();
  }
  resource_version_ = page->resource_version;
  whole_list_ = false;
  replica_.EndList(kind_);
  ++counters_.lists;
  trouble_.clear();
  Follow(Next::kWatch);
}

void Reflector::StartWatch() {
  misunderstood_.clear();
  expired_ = false;
  watch_.emplace(options_.limits);
  watch_began_ = now_();
  events_before_ = counters_.events;
  under_way_ = true;
  const std::int64_t least = options_.watch_lasts.count();
  const std::chrono::seconds lasts(std::uniform_int_distribution<std::int64_t>(least, 2 * least)(random_));
  HttpRequest request;
  request.path = path_ + "&watch=true&allowWatchBookmarks=true&timeoutSeconds=" + std::to_string(lasts.count()) +
                 "&resourceVersion=" + Encoded(resource_version_);
  request.silence = options_.watch_silence;
  request.total = lasts + kGrace;
  request.on_begin = [this] {
    ++counters_.watches;
    trouble_.clear();
  };
  request.on_body = [this](std::string_view bytes) {
    return watch_->Feed(bytes, [this](std::string_view text) { return OnEvent(text); }) || Misunderstood(watch_->Error());
  };
  request.on_end = [this](const HttpEnd& end) { OnWatchEnd(end); };
  client_.Start(std::move(request));
}

bool Reflector::OnEvent(std::string_view text) {
  auto tree = ParseJson(text, omitted_in_events_);
  if (!tree) return Misunderstood(tree.Error());
  const std::string type = TextOf(**tree, "type");
  const YamlNode* object = (*tree)->Find("object");
  if (object == nullptr || object->kind != YamlNode::Kind::kMap) return Misunderstood("an event without an object");
  if (type == "ERROR") return OnErrorEvent(*object);
  if (type != "BOOKMARK") return OnChange(type, *object);
  const YamlNode* metadata = object->Find("metadata");
  const std::string version = metadata == nullptr ? "" : TextOf(*metadata, "resourceVersion");
  if (version.empty()) return Misunderstood("a bookmark without a resourceVersion");
  resource_version_ = version;
  return true;
}

bool Reflector::OnChange(const std::string& type, const YamlNode& object) {
  auto identity = IdentityOf(object);
  if (!identity) return Misunderstood(identity.Error());
  if (type == "DELETED") {
    replica_.Remove(kind_, identity.Value());
  } else if (type != "ADDED" && type != "MODIFIED") {
    return Misunderstood("an event of type \"" + type.substr(0, 40) + "\"");
  } else if (!replica_.Put(kind_, identity.Value(), object)) {
    return Misunderstood("too many objects for this agent");
  }
  resource_version_ = identity->resource_version;
  ++counters_.events;
  return true;
}

bool Reflector::OnErrorEvent(const YamlNode& status) {
  expired_ = TextOf(status, "code") == std::to_string(kGone);
  return expired_ ? false : Misunderstood("an error event: " + TextOf(status, "message").substr(0, 200));
}

void Reflector::OnWatchEnd(const HttpEnd& end) {
  under_way_ = false;
  const bool useful = counters_.events != events_before_ || now_() - watch_began_ >= kHonestWatch;
  if (useful) backoff_.Reset();
  if (expired_ || end.status == kGone) {
    // What was between is no longer to be had one by one. Usual after a long outage; a server that says so each time is paused for.
    ++counters_.failures;
    return useful ? Follow(Next::kList) : Pause(Next::kList, end);
  }
  if (!misunderstood_.empty()) return Fail(Next::kList, "an event that makes no sense: " + misunderstood_, end);
  if (end.status >= 200 && end.status < 300) {
    // It began, and it has ended: as it should, or because a connection broke. What happened since, the next one tells.
    if (!end.complete) ++counters_.failures;
    return useful ? Follow(Next::kWatch) : Pause(Next::kWatch, end);
  }
  // A version that the server cannot know, as after its storage was restored from a copy, ends in one of these.
  const bool other_history = end.status == kBadRequest || end.status == kNotFound || end.status == kGatewayTimeout;
  Fail(other_history ? Next::kList : Next::kWatch, end.error, end);
}

bool Reflector::Misunderstood(const std::string& what) {
  if (misunderstood_.empty() && !expired_) misunderstood_ = what.empty() ? "unknown" : what;
  return false;
}

void Reflector::Follow(Next next) {
  next_ = next;
  due_ = now_();
}

void Reflector::Pause(Next next, const HttpEnd& end) {
  next_ = next;
  due_ = now_() + std::max<std::chrono::milliseconds>(backoff_.Next(), end.retry_after.value_or(std::chrono::seconds(0)));
}

void Reflector::Fail(Next next, const std::string& why, const HttpEnd& end) {
  ++counters_.failures;
  replica_.AbandonList(kind_);
  if (trouble_.empty()) trouble_since_ = TimeOfDay();
  trouble_ = PluralName(kind_);
  if (end.status == kUnauthorized) {
    trouble_ += ": the API server does not know us by our token or certificate (" + why + ")";
  } else if (end.status == kForbidden) {
    trouble_ += ": we are not allowed to list and watch them (" + why + ")";
  } else {
    trouble_ += " cannot be read: " + why;
  }
  trouble_ += ", since " + trouble_since_;
  Pause(next, end);
}

}  // namespace vsocket::kube
