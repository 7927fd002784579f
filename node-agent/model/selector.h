// meta/v1 LabelSelector over labels, as k8s.io/apimachinery documents it: matchLabels and matchExpressions are AND-ed; NotIn and
// DoesNotExist also match what has no such label; an empty selector matches everything.
#pragma once

#include "node-agent/model/cluster.h"

namespace vsocket::model {

bool Matches(const LabelSelector& selector, const Labels& labels);

}  // namespace vsocket::model
