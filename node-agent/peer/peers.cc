#include "node-agent/peer/peers.h"

#include <algorithm>
#include <atomic>
#include <ctime>
#include <future>
#include <map>
#include <mutex>
#include <random>
#include <utility>

#include "node-agent/peer/backoff.h"
#include "node-agent/peer/credentials.h"
#include "node-agent/peer/event_thread.h"
#include "node-agent/peer/session.h"
#include "node-agent/peer/stream.h"

namespace vsocket::peer {
namespace {

constexpr std::uint64_t kMillisecond = 1'000'000;
constexpr std::uint64_t kLastWordsNs = 1000 * kMillisecond;    // how long a stream that is ended may take to write what is left
constexpr std::uint64_t kSteadyNs = 10'000 * kMillisecond;     // a session of that length was a good one: the next failure is a first one
constexpr std::uint64_t kLookAtDatesNs = 1000 * kMillisecond;  // how often certificates of sessions are looked at
constexpr std::size_t kMostBacklog = 65'536;                   // messages that a peer may leave unread

}  // namespace

class Peers::Impl final : public Outgoing {
  // What gRPC may still want to say when this object has gone: handshakes end when they end.
  class Voice {
   public:
    explicit Voice(std::function<void(const std::string&)> say) : say_(std::move(say)) {}
    void Say(const std::string& line) {
      const std::lock_guard lock(mutex_);
      if (say_) say_(line);
    }
    void Refused(const std::string& why) {
      ++refused;
      Say("certificate refused: " + why);
    }
    void Silence() {
      const std::lock_guard lock(mutex_);
      say_ = nullptr;
    }
    std::atomic<std::uint64_t> refused{0};

   private:
    std::mutex mutex_;
    std::function<void(const std::string&)> say_;
  };

 public:
  Impl(PeersOptions options, model::PeerHost& host)
      : options_(std::move(options)),
        host_(host),
        agreement_(options_.node, options_.limits, where_, host_, *this),
        voice_(std::make_shared<Voice>(options_.say)),
        credentials_({options_.certificate_file, options_.key_file, options_.roots_file}, options_.trust_domain,
                     [voice = voice_](const std::string& why) { voice->Refused(why); }),
        seed_(options_.instance),
        thread_(std::make_shared<EventThread>([this](std::uint64_t now_ns) { return Tick(now_ns); })) {}

  std::string Open() {
    if (const std::string problem = credentials_.Problem(options_.node); !problem.empty()) Say("own certificate: " + problem);
    auto listener = Listener::Start(
        options_.listen, credentials_.ForListening(), options_.trust_domain,
        [this](const NodeIdentity& identity, std::shared_ptr<Stream> stream) { return Taken(identity, std::move(stream)); });
    if (!listener) return listener.Error();
    listener_ = std::move(listener.Value());
    return {};
  }

  ~Impl() override {
    thread_->Ask<bool>([this] {
      closing_ = true;
      for (auto& [id, conversation] : conversations_) conversation->session->End(Farewell::kEnding, "the agent ends");
      return true;
    });
    if (listener_ != nullptr) listener_->Stop();
    // Streams that this node made end when the far side has read the goodbye; Tick cuts those that do not. Each must have ended on our
    // thread before that ends.
    thread_->Ask<bool>([this] {
      listener_stopped_ = true;  // no new ones come
      if (conversations_.empty()) all_gone_.set_value();
      return true;
    });
    all_gone_.get_future().wait();
    thread_->Stop();
    voice_->Silence();
  }

  template <typename Function>
  void Do(Function function) {
    thread_->Post([this, function = std::move(function)] { function(*this); });
  }

  void SetCluster(Directory directory) {
    where_ = std::move(directory);
    for (auto at = links_.begin(); at != links_.end();) {
      if (where_.Find(at->first) != nullptr) {
        ++at;
        continue;
      }
      if (Conversation* gone = Current(at->second)) gone->session->End(Farewell::kUnknownNode, "the node is not in the cluster any more");
      at = links_.erase(at);
    }
    for (const model::NodeAgent& agent : where_.Nodes()) {
      if (agent.node == options_.node) continue;
      const auto [at, is_new] = links_.try_emplace(agent.node, *this);
      if (is_new) at->second.why = Leads(agent.node) ? "" : "waiting for its call";
    }
    agreement_.Reconsider();
  }

  void Ask(const model::PeerEnd& end) {
    if (const auto refusal = agreement_.Ask(end, EventThread::Now())) host_.Refused(end, *refusal);
  }

  std::vector<model::PeerInfo> List() {
    std::vector<model::PeerInfo> all;
    for (const auto& [node, link] : links_) {
      model::PeerInfo info;
      info.node = node;
      info.endpoint = where_.Find(node)->endpoint;
      info.why = link.why;
      info.sessions = link.sessions;
      const Conversation* current = Current(link);
      const bool open = current != nullptr && current->session->GetState() == Session::State::kOpen;
      info.state = open ? "connected" : (current != nullptr ? "connecting" : "waiting");
      if (open) {
        info.version = current->session->GetTerms().far_version;
        info.transport = current->session->GetTerms().transport;
        info.instance = current->session->GetTerms().far_instance;
      }
      info.offers = static_cast<std::uint32_t>(agreement_.OffersOf(node));
      info.channels = static_cast<std::uint32_t>(agreement_.ChannelsOf(node));
      all.push_back(std::move(info));
    }
    return all;
  }

  PeersCounters Counters() {
    PeersCounters counters;
    counters.agreement = agreement_.Counters();
    counters.dials = dials_;
    counters.sessions = sessions_;
    counters.refused_certificates = voice_->refused;
    counters.breaches = breaches_;
    counters.pauses = pauses_;
    for (const auto& [id, conversation] : conversations_) {
      if (conversation->session->GetState() == Session::State::kOpen) ++counters.connected;
    }
    return counters;
  }

  Agreement& GetAgreement() { return agreement_; }
  EventThread& Thread() { return *thread_; }
  [[nodiscard]] std::uint16_t Port() const { return listener_->Port(); }

  void SendTo(const std::string& node, const Message& message) override {
    const auto link = links_.find(node);
    if (link == links_.end()) return;
    if (Conversation* current = Current(link->second)) current->Send(message);
  }

 private:
  using Id = std::uint64_t;

  // One stream and what is said on it.
  struct Conversation final : public SessionSink {
    Conversation(Impl& the_owner, Id the_id, std::string the_node) : owner(the_owner), id(the_id), node(std::move(the_node)) {}
    void Send(const Message& message) override {
      stream->Write(message);
      if (stream->Backlog() > kMostBacklog) overwhelmed = true;
    }
    void Opened(const Terms& terms) override { owner.Opened(*this, terms); }
    bool Deliver(const Message& message, std::string* why) override {
      return owner.agreement_.Receive(node, message, EventThread::Now(), why);
    }
    void Ended(Farewell why, const std::string& text) override { owner.Ended(*this, why, text); }

    Impl& owner;
    const Id id;
    const std::string node;
    std::shared_ptr<Stream> stream;
    std::unique_ptr<Session> session;
    std::int64_t not_after = 0;  // of the far certificate; 0: not known yet
    std::uint64_t opened_ns = 0;
    std::uint64_t cut_ns = UINT64_MAX;  // ended: when the stream is cancelled
    bool paused = false;                // reading
    bool overwhelmed = false;
  };

  // What is known of one node's agent.
  struct Link {
    explicit Link(Impl& owner)
        : backoff(owner.options_.first_retry_ms * kMillisecond, owner.options_.longest_retry_ms * kMillisecond, owner.seed_()) {}
    Backoff backoff;
    Id current = 0;  // a conversation that has not ended; 0: none
    std::uint64_t next_dial_ns = 0;
    std::string why;
    std::uint64_t sessions = 0;
  };

  // From gRPC's threads to ours. What comes when the thread has stopped is dropped.
  class Events final : public StreamEvents {
   public:
    Events(std::shared_ptr<EventThread> thread, Impl& owner, Id id) : thread_(std::move(thread)), owner_(owner), id_(id) {}
    void OnIdentity(const NodeIdentity& identity) override {
      Post([not_after = identity.not_after](Impl&, Conversation& conversation) { conversation.not_after = not_after; });
    }
    void OnMessage(Result<Message, std::string> message) override {
      Post([message = std::move(message)](Impl& owner, Conversation& conversation) { owner.Received(conversation, message); });
    }
    void OnDrained() override {
      Post([](Impl&, Conversation& conversation) {
        if (conversation.paused) conversation.stream->ReadOn();
        conversation.paused = false;
      });
    }
    void OnEnd(const std::string& why, std::shared_ptr<Stream> last) override {
      Post([why, last = std::move(last)](Impl& owner, Conversation& conversation) {
        conversation.session->Broken(why.empty() ? "the other agent ended the stream" : why);
        owner.Gone(conversation.id);
      });
    }

   private:
    template <typename Function>
    void Post(Function function) {
      thread_->Post([this_owner = &owner_, id = id_, function = std::move(function)] {
        const auto at = this_owner->conversations_.find(id);
        if (at != this_owner->conversations_.end()) function(*this_owner, *at->second);
      });
    }
    const std::shared_ptr<EventThread> thread_;
    Impl& owner_;
    const Id id_;
  };

  [[nodiscard]] bool Leads(const std::string& node) const { return options_.node < node; }
  void Say(const std::string& line) const { voice_->Say(line); }
  [[nodiscard]] Conversation* Current(const Link& link) const {
    const auto at = conversations_.find(link.current);
    return at == conversations_.end() ? nullptr : at->second.get();
  }
  [[nodiscard]] SessionOptions OptionsOfSession() const {
    SessionOptions session;
    session.node = options_.node;
    session.instance = options_.instance;
    session.agent_version = options_.agent_version;
    session.min_version = options_.min_version;
    session.max_version = options_.max_version;
    session.transports = options_.transports;
    session.heartbeat_ms = options_.heartbeat_ms;
    session.silence_ns = options_.silence_ms * kMillisecond;
    return session;
  }

  void Dial(const std::string& node, Link& link) {
    ++dials_;
    const Id id = ++last_id_;
    auto& conversation = conversations_[id] = std::make_unique<Conversation>(*this, id, node);
    link.current = id;
    conversation->stream = peer::Dial(where_.Find(node)->endpoint, credentials_.ForCalling(node), options_.trust_domain,
                                      std::make_shared<Events>(thread_, *this, id));
    Begin(*conversation, Session::Role::kCaller);
  }

  void Begin(Conversation& conversation, Session::Role role) {
    conversation.session = std::make_unique<Session>(role, OptionsOfSession(), conversation.node, conversation, EventThread::Now());
    conversation.stream->ReadOn();
  }

  // On a thread of gRPC's.
  std::shared_ptr<StreamEvents> Taken(const NodeIdentity& identity, std::shared_ptr<Stream> stream) {
    const Id id = ++last_id_;
    const bool posted = thread_->Post([this, id, identity, stream = std::move(stream)] {
      auto& conversation = conversations_[id] = std::make_unique<Conversation>(*this, id, identity.node);
      conversation->stream = stream;
      conversation->not_after = identity.not_after;
      Begin(*conversation, Session::Role::kListener);
      const auto link = links_.find(identity.node);
      if (closing_) return conversation->session->End(Farewell::kEnding, "the agent ends");
      if (link == links_.end()) {
        return conversation->session->End(Farewell::kUnknownNode, "node " + options_.node + " knows no node " + identity.node);
      }
      if (Leads(identity.node))
        return conversation->session->End(Farewell::kBrokeProtocol, "of two nodes the one with the smaller name calls");
      // It is the same node, its certificate says so: if it has begun anew, the old stream is of no use to it.
      if (Conversation* older = Current(link->second)) older->session->End(Farewell::kReplaced, "the node has made another stream");
      link->second.current = id;
    });
    return posted ? std::make_shared<Events>(thread_, *this, id) : nullptr;
  }

  void Opened(Conversation& conversation, const Terms& terms) {
    const auto link = links_.find(conversation.node);
    if (link == links_.end() || link->second.current != conversation.id) return;
    conversation.opened_ns = EventThread::Now();
    ++sessions_;
    ++link->second.sessions;
    link->second.why = terms.transport.empty() ? "no transport in common" : "";
    Say("connected to the agent of node " + conversation.node + ", version " + terms.far_version + ", transport " +
        (terms.transport.empty() ? "none" : terms.transport));
    agreement_.SessionOpened(conversation.node, terms);
  }

  void Received(Conversation& conversation, const Result<Message, std::string>& message) {
    if (message) {
      conversation.session->Receive(message.Value(), EventThread::Now());
    } else {
      conversation.session->ReceivedGarbage(message.Error());
    }
    // Who does not read what it is answered is not read from.
    if (conversation.session->GetState() != Session::State::kClosed && conversation.stream->Backlog() >= kHighWater) {
      conversation.paused = true;
      ++pauses_;
    } else {
      conversation.stream->ReadOn();  // of a closed one too, to see its end
    }
  }

  void Gone(Id id) {
    conversations_.erase(id);
    if (listener_stopped_ && conversations_.empty()) all_gone_.set_value();
  }

  void Ended(Conversation& conversation, Farewell why, const std::string& text) {
    const std::uint64_t now_ns = EventThread::Now();
    conversation.stream->Finish();
    conversation.cut_ns = now_ns + kLastWordsNs;
    if (conversation.paused) conversation.stream->ReadOn();
    conversation.paused = false;
    if (why == Farewell::kBrokeProtocol) ++breaches_;
    const auto link = links_.find(conversation.node);
    const bool current = link != links_.end() && link->second.current == conversation.id;
    if (!closing_) Say((current ? "the stream to node " : "a stream of node ") + conversation.node + " has ended: " + text);
    if (!current) {
      // A node that has left the cluster had its link erased after its session's end, so this is one that never counted.
      return;
    }
    link->second.current = 0;
    link->second.why = text;
    if (conversation.opened_ns != 0 && now_ns - conversation.opened_ns >= kSteadyNs) link->second.backoff.Reset();
    link->second.next_dial_ns = now_ns + link->second.backoff.Next();
    if (conversation.opened_ns != 0) agreement_.SessionLost(conversation.node, text, now_ns);
  }

  std::uint64_t Tick(std::uint64_t now_ns) {
    const std::int64_t date = std::time(nullptr);
    std::uint64_t next_ns = agreement_.NextTick();
    if (next_ns <= now_ns) {
      agreement_.Tick(now_ns);
      next_ns = agreement_.NextTick();
    }
    for (auto& [id, conversation] : conversations_) {
      Session& session = *conversation->session;
      session.Tick(now_ns);
      if (conversation->overwhelmed) session.End(Farewell::kOverwhelmed, "it does not read what it is sent");
      if (conversation->not_after != 0 && date >= conversation->not_after) session.End(Farewell::kExpired, "its certificate has run out");
      if (now_ns >= conversation->cut_ns) {
        conversation->stream->Cancel();
        conversation->cut_ns = UINT64_MAX;
      }
      next_ns = std::min({next_ns, session.NextTick(), conversation->cut_ns, now_ns + kLookAtDatesNs});
    }
    for (auto& [node, link] : links_) {
      if (closing_ || !Leads(node) || link.current != 0) continue;
      if (now_ns >= link.next_dial_ns) Dial(node, link);
      next_ns = std::min(next_ns, link.current != 0 ? now_ns + kMillisecond : link.next_dial_ns);
    }
    return next_ns;
  }

  const PeersOptions options_;
  model::PeerHost& host_;
  std::atomic<Id> last_id_{0};

  // All of the following is the thread's.
  Directory where_;
  Agreement agreement_;
  std::shared_ptr<Voice> voice_;
  Credentials credentials_;
  std::mt19937_64 seed_;
  std::map<std::string, Link> links_;  // by node; as where_ has them, without this node
  std::map<Id, std::unique_ptr<Conversation>> conversations_;
  bool closing_ = false, listener_stopped_ = false;
  std::promise<void> all_gone_;  // conversations_ is empty and stays so
  std::uint64_t dials_ = 0, sessions_ = 0, breaches_ = 0, pauses_ = 0;

  std::unique_ptr<Listener> listener_;
  std::shared_ptr<EventThread> thread_;  // last: it uses everything above from its first moment
};

Peers::Peers(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Peers::~Peers() = default;

Result<std::unique_ptr<Peers>, std::string> Peers::Start(PeersOptions options, model::PeerHost& host) {
  auto impl = std::make_unique<Impl>(std::move(options), host);
  const std::string problem = impl->Open();
  if (!problem.empty()) return Failure(problem);
  return std::unique_ptr<Peers>(new Peers(std::move(impl)));
}

void Peers::SetCluster(Directory directory) {
  impl_->Do([directory = std::move(directory)](Impl& impl) { impl.SetCluster(directory); });
}
void Peers::Ask(const model::PeerEnd& end) {
  impl_->Do([end](Impl& impl) { impl.Ask(end); });
}
void Peers::TakeBack(std::uint64_t netns_cookie, std::uint64_t socket_cookie) {
  impl_->Do([=](Impl& impl) { impl.GetAgreement().TakeBack(netns_cookie, socket_cookie); });
}
void Peers::CloseChannel(const model::PeerChannel& channel, channel::Reason reason) {
  impl_->Do([=](Impl& impl) { impl.GetAgreement().CloseChannel(channel, reason); });
}
void Peers::Send(const model::PeerChannel& channel, const model::PeerNote& note) {
  impl_->Do([=](Impl& impl) { impl.GetAgreement().Send(channel, note); });
}
void Peers::SendLink(const std::string& node, const std::string& data) {
  impl_->Do([=](Impl& impl) { impl.GetAgreement().SendLink(node, data); });
}
void Peers::Reconsider() {
  impl_->Do([](Impl& impl) { impl.GetAgreement().Reconsider(); });
}
std::vector<model::PeerInfo> Peers::List() const {
  return impl_->Thread().Ask<std::vector<model::PeerInfo>>([this] { return impl_->List(); });
}
PeersCounters Peers::Counters() const {
  return impl_->Thread().Ask<PeersCounters>([this] { return impl_->Counters(); });
}
std::uint16_t Peers::Port() const {
  return impl_->Port();
}

}  // namespace vsocket::peer
