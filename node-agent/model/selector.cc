#include "node-agent/model/selector.h"

#include <algorithm>

namespace vsocket::model {
namespace {

bool MatchesTerm(const SelectorTerm& term, const Labels& labels) {
  const auto label = labels.find(term.key);
  const bool present = label != labels.end();
  const bool listed = present && std::find(term.values.begin(), term.values.end(), label->second) != term.values.end();
  switch (term.op) {
    case SelectorTerm::Operator::kIn:
      return listed;
    case SelectorTerm::Operator::kNotIn:
      return !listed;
    case SelectorTerm::Operator::kExists:
      return present;
    case SelectorTerm::Operator::kDoesNotExist:
      return !present;
  }
  return false;
}

}  // namespace

bool Matches(const LabelSelector& selector, const Labels& labels) {
  for (const auto& [key, value] : selector.match_labels) {
    const auto label = labels.find(key);
    if (label == labels.end() || label->second != value) return false;
  }
  return std::all_of(selector.match_expressions.begin(), selector.match_expressions.end(),
                     [&](const SelectorTerm& term) { return MatchesTerm(term, labels); });
}

}  // namespace vsocket::model
