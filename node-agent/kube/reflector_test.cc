#include "node-agent/kube/reflector.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/kube/testing/json_objects.h"

namespace vsocket::kube {
namespace {

using testing::EventJson;
using testing::ListJson;
using testing::PodJson;

// Holds what was asked, and lets the test answer.
class ScriptedClient : public HttpsClient {
 public:
  Id Start(HttpRequest request) override {
    asked.push_back(std::move(request));
    return asked.size();
  }
  void Cancel(Id) override {}
  void Run(Clock::time_point) override {}
  void Wake() override {}

  std::vector<HttpRequest> asked;
};

class ReflectorTest : public ::testing::Test {
 protected:
  ReflectorTest() : reflector_(Kind::kPod, "n1", client_, replica_, ReflectorOptions{}, 7, [this] { return now_; }) {}

  // What is asked now, after the pause if there is one.
  HttpRequest Asked() {
    if (reflector_.Due() != Clock::time_point::max()) now_ = std::max(now_, reflector_.Due());
    reflector_.Tick();
    if (client_.asked.size() != asked_ + 1) {
      ADD_FAILURE() << client_.asked.size() - asked_ << " requests, not one";
      return {};
    }
    return client_.asked[asked_++];
  }
  static void Begin(const HttpRequest& request) {
    if (request.on_begin) request.on_begin();
  }
  static HttpEnd Over(int status = 200) {
    HttpEnd end;
    end.complete = true;
    end.status = status;
    if (status >= 300) end.error = "HTTP " + std::to_string(status);
    return end;
  }
  // What the client does when on_body has enough.
  static HttpEnd Cut(int status = 200) {
    HttpEnd end = Over(status);
    end.complete = false;
    return end;
  }
  static HttpEnd NoServer() {
    HttpEnd end;
    end.error = "Connection refused";
    return end;
  }
  void AnswerList(const std::string& body) {
    const HttpRequest list = Asked();
    const bool whole = list.on_body(body);
    list.on_end(whole ? Over() : Cut());
  }
  HttpRequest ListedAndWatching() {
    AnswerList(ListJson("10", PodJson("a", "9", "10.0.0.1")));
    HttpRequest watch = Asked();
    Begin(watch);
    return watch;
  }
  std::chrono::milliseconds PauseNow() const { return std::chrono::duration_cast<std::chrono::milliseconds>(reflector_.Due() - now_); }
  std::size_t Pods() const { return replica_.Count(Kind::kPod); }

  Clock::time_point now_ = Clock::now();
  ScriptedClient client_;
  std::size_t asked_ = 0;
  Replica replica_;
  Reflector reflector_;
};

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_F(ReflectorTest, ListsInPagesAndGoesOnWithAWatch) {
  const HttpRequest first = Asked();
  EXPECT_TRUE(Has(first.path, "/api/v1/pods?fieldSelector=status.phase%21%3DSucceeded")) << first.path;
  EXPECT_TRUE(Has(first.path, "&limit=500")) << first.path;
  EXPECT_FALSE(Has(first.path, "resourceVersion")) << "a consistent read: " << first.path;
  first.on_body(ListJson("10", PodJson("a", "9", "10.0.0.1"), "to/ken="));
  first.on_end(Over());
  EXPECT_FALSE(replica_.Listed(Kind::kPod));
  const HttpRequest second = Asked();
  EXPECT_TRUE(Has(second.path, "&continue=to%2Fken%3D")) << second.path;
  second.on_body(ListJson("10", PodJson("b", "8", "10.0.0.2")));
  second.on_end(Over());
  EXPECT_TRUE(replica_.Listed(Kind::kPod));
  EXPECT_EQ(Pods(), 2u);
  const HttpRequest watch = Asked();
  EXPECT_TRUE(Has(watch.path, "&watch=true&allowWatchBookmarks=true&timeoutSeconds=")) << watch.path;
  EXPECT_TRUE(Has(watch.path, "&resourceVersion=10")) << watch.path;
  EXPECT_EQ(reflector_.Counters().lists, 1u);
}

TEST_F(ReflectorTest, FollowsEventsAndGoesOnFromTheLast) {
  const HttpRequest watch = ListedAndWatching();
  EXPECT_TRUE(watch.on_body(EventJson("ADDED", PodJson("b", "11", "10.0.0.2"))));
  EXPECT_EQ(Pods(), 2u);
  EXPECT_TRUE(watch.on_body(EventJson("ADDED", PodJson("b", "11", "10.0.0.2")))) << "twice does no harm";
  EXPECT_TRUE(watch.on_body(EventJson("DELETED", PodJson("a", "12", "10.0.0.1"))));
  EXPECT_EQ(Pods(), 1u);
  const std::string next = EventJson("MODIFIED", PodJson("b", "13", "10.0.0.3"));
  EXPECT_TRUE(watch.on_body(next.substr(0, next.size() - 10)));
  watch.on_end(Cut());  // in the middle of an event
  EXPECT_TRUE(reflector_.Trouble().empty()) << "nothing is lost yet";
  EXPECT_EQ(PauseNow(), std::chrono::milliseconds(0));
  EXPECT_TRUE(Has(Asked().path, "&resourceVersion=12")) << "that event is asked for again";
  EXPECT_EQ(reflector_.Counters().events, 3u);
}

TEST_F(ReflectorTest, ABookmarkMovesTheVersionOn) {
  const HttpRequest watch = ListedAndWatching();
  EXPECT_TRUE(watch.on_body(EventJson("BOOKMARK", R"({"kind":"Pod","metadata":{"resourceVersion":"99","creationTimestamp":null}})")));
  now_ += std::chrono::minutes(6);
  watch.on_end(Over());
  EXPECT_TRUE(Has(Asked().path, "&resourceVersion=99"));
}

TEST_F(ReflectorTest, GoneInEitherFormMeansANewList) {
  for (const bool as_event : {true, false}) {
    const HttpRequest watch = as_event ? ListedAndWatching() : Asked();
    now_ += std::chrono::minutes(1);
    if (as_event) {
      Begin(watch);
      EXPECT_FALSE(watch.on_body(EventJson("ERROR", R"({"kind":"Status","code":410,"reason":"Expired","message":"too old"})")));
      watch.on_end(Cut());
    } else {
      watch.on_end(Over(410));
    }
    EXPECT_TRUE(reflector_.Trouble().empty()) << reflector_.Trouble();
    EXPECT_EQ(Pods(), 1u) << "what was known stays in force meanwhile";
    AnswerList(ListJson("20", PodJson("c", "19", "10.0.0.9")));
  }
  EXPECT_EQ(reflector_.Counters().lists, 3u);
}

TEST_F(ReflectorTest, AServerThatAlwaysSaysGoneIsPausedFor) {
  std::vector<std::chrono::milliseconds> pauses;
  for (int i = 0; i < 5; ++i) {
    AnswerList(ListJson("10", ""));
    Asked().on_end(Over(410));
    pauses.push_back(PauseNow());
  }
  EXPECT_GT(pauses.front().count(), 0);
  EXPECT_GT(pauses.back(), 4 * pauses.front());
}

TEST_F(ReflectorTest, AContinueTokenThatExpiredBeginsAgainAndInTheEndWithoutPages) {
  const HttpRequest first = Asked();
  first.on_body(ListJson("10", PodJson("a", "9", "10.0.0.1"), "token"));
  first.on_end(Over());
  Asked().on_end(Over(410));
  EXPECT_FALSE(replica_.Listed(Kind::kPod));
  const HttpRequest whole = Asked();
  EXPECT_FALSE(Has(whole.path, "limit=") || Has(whole.path, "continue=")) << whole.path;
  whole.on_body(ListJson("11", PodJson("b", "9", "10.0.0.1")));
  whole.on_end(Over());
  EXPECT_EQ(Pods(), 1u) << "nothing of the first attempt is left";
  EXPECT_TRUE(reflector_.Trouble().empty());
}

TEST_F(ReflectorTest, AListDoesNotGoRoundInCircles) {
  for (int i = 0; i < 2; ++i) {
    const HttpRequest page = Asked();
    page.on_body(ListJson("10", "", "again"));
    page.on_end(Over());
  }
  EXPECT_TRUE(Has(reflector_.Trouble(), "in circles")) << reflector_.Trouble();
  EXPECT_FALSE(Has(Asked().path, "continue=")) << "from the start";
}

TEST_F(ReflectorTest, PausesGrowAndAreShorterNeitherThanAskedFor) {
  std::chrono::milliseconds last{0};
  for (int i = 0; i < 10; ++i) {
    Asked().on_end(NoServer());
    last = PauseNow();
  }
  EXPECT_GE(last, std::chrono::milliseconds(7500));
  EXPECT_LE(last, std::chrono::milliseconds(15000));
  HttpEnd busy = Over(429);
  busy.retry_after = std::chrono::seconds(40);
  Asked().on_end(busy);
  EXPECT_GE(PauseNow(), std::chrono::seconds(40));
}

TEST_F(ReflectorTest, TroubleIsToldInWordsAndEndsWithIt) {
  const HttpRequest watch = ListedAndWatching();
  now_ += std::chrono::minutes(1);
  watch.on_end(Cut());
  Asked().on_end(NoServer());
  EXPECT_TRUE(Has(reflector_.Trouble(), "pods cannot be read: Connection refused, since 20")) << reflector_.Trouble();
  Asked().on_end(Over(401));
  EXPECT_TRUE(Has(reflector_.Trouble(), "does not know us")) << reflector_.Trouble();
  Asked().on_end(Over(403));
  EXPECT_TRUE(Has(reflector_.Trouble(), "not allowed to list and watch")) << reflector_.Trouble();
  EXPECT_EQ(Pods(), 1u);
  const HttpRequest again = Asked();
  EXPECT_TRUE(Has(again.path, "watch=true&")) << "it goes on where it was: " << again.path;
  Begin(again);
  EXPECT_TRUE(reflector_.Trouble().empty());
}

TEST_F(ReflectorTest, AnEventThatMakesNoSenseMeansANewList) {
  const std::vector<std::string> events{"garbage\n",
                                        "{\"type\":\"ADDED\"}\n",
                                        "{\"type\":\"ADDED\",\"object\":7}\n",
                                        "{\"type\":7,\"object\":{\"metadata\":{}}}\n",
                                        "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"x\"}}}\n",
                                        "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"resourceVersion\":\"5\"}}}\n",
                                        "{\"type\":\"RENAMED\",\"object\":{\"metadata\":{\"name\":\"x\",\"resourceVersion\":\"5\"}}}\n",
                                        "{\"type\":\"BOOKMARK\",\"object\":{}}\n",
                                        "{\"type\":\"ERROR\",\"object\":{\"code\":500,\"message\":\"internal\"}}\n",
                                        "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"x\",\"resourceVersion\":\"5\",}}}\n"};
  for (const std::string& event : events) {
    const HttpRequest watch = ListedAndWatching();
    EXPECT_FALSE(watch.on_body(event)) << event;
    watch.on_end(Cut());
    EXPECT_FALSE(reflector_.Trouble().empty()) << event;
    EXPECT_EQ(Pods(), 1u) << event;
    EXPECT_GT(PauseNow().count(), 0) << event;
  }
  EXPECT_FALSE(Has(Asked().path, "watch=")) << "a list";
}

TEST_F(ReflectorTest, AListThatMakesNoSenseChangesNothing) {
  const HttpRequest watch = ListedAndWatching();
  watch.on_end(Over(410));
  for (const std::string& body : {std::string("<html>"), std::string("{\"items\":["), ListJson("20", "7"), ListJson("", ""),
                                  ListJson("20", "{}"), ListJson("20", "{\"metadata\":{\"name\":\"x\"}}")}) {
    AnswerList(body);
    EXPECT_TRUE(Has(reflector_.Trouble(), "makes no sense")) << body << reflector_.Trouble();
    EXPECT_EQ(Pods(), 1u);
  }
}

TEST_F(ReflectorTest, AVersionThatTheServerCannotKnowMeansANewList) {
  for (const int status : {400, 404, 504}) {
    const HttpRequest watch = ListedAndWatching();
    watch.on_end(Over(status));
    EXPECT_FALSE(reflector_.Trouble().empty());
  }
  EXPECT_FALSE(Has(Asked().path, "watch="));
}

TEST_F(ReflectorTest, AWatchThatEndsAtOnceIsPausedFor) {
  std::vector<std::chrono::milliseconds> pauses;
  AnswerList(ListJson("10", ""));
  for (int i = 0; i < 5; ++i) {
    const HttpRequest watch = Asked();
    Begin(watch);
    watch.on_end(Over());
    pauses.push_back(PauseNow());
  }
  EXPECT_GT(pauses.back(), 4 * pauses.front());
  EXPECT_TRUE(reflector_.Trouble().empty());
}

}  // namespace
}  // namespace vsocket::kube
