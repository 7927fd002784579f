// Prints the conformance cases that cyclonus generates, with every tag: a case a step, with every flow that it would probe between its pods
// and the verdict that it expects.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sort"

	"github.com/mattfenwick/cyclonus/pkg/connectivity/probe"
	"github.com/mattfenwick/cyclonus/pkg/generator"
	"github.com/mattfenwick/cyclonus/pkg/matcher"
	"github.com/sirupsen/logrus"
	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vsocket/test/oracles/exchange"
)

var namespaces = []string{"x", "y", "z"}

// What cyclonus makes in a cluster before its first case.
func resources() *probe.Resources {
	all := &probe.Resources{Namespaces: map[string]map[string]string{}}
	for i, ns := range namespaces {
		all.Namespaces[ns] = map[string]string{"ns": ns, "kubernetes.io/metadata.name": ns}
		for k, name := range []string{"a", "b", "c"} {
			pod := probe.NewDefaultPod(ns, name, []int{80, 81}, []v1.Protocol{v1.ProtocolTCP, v1.ProtocolUDP, v1.ProtocolSCTP}, false, "registry")
			pod.IP = fmt.Sprintf("192.168.%d.%d", i+1, k+10)
			all.Pods = append(all.Pods, pod)
		}
	}
	return all
}

type state struct {
	resources *probe.Resources
	policies  []*networkingv1.NetworkPolicy
	created   int
}

func (s *state) without(ns, name string) []*networkingv1.NetworkPolicy {
	var left []*networkingv1.NetworkPolicy
	for _, policy := range s.policies {
		if policy.Namespace != ns || policy.Name != name {
			left = append(left, policy)
		}
	}
	return left
}

func (s *state) apply(action *generator.Action) (err error) {
	switch {
	case action.CreatePolicy != nil:
		s.policies = append(s.policies, action.CreatePolicy.Policy)
	case action.UpdatePolicy != nil:
		policy := action.UpdatePolicy.Policy
		s.policies = append(s.without(policy.Namespace, policy.Name), policy)
	case action.DeletePolicy != nil:
		s.policies = s.without(action.DeletePolicy.Namespace, action.DeletePolicy.Name)
	case action.CreateNamespace != nil:
		s.resources, err = s.resources.CreateNamespace(action.CreateNamespace.Namespace, action.CreateNamespace.Labels)
	case action.SetNamespaceLabels != nil:
		s.resources, err = s.resources.UpdateNamespaceLabels(action.SetNamespaceLabels.Namespace, action.SetNamespaceLabels.Labels)
	case action.DeleteNamespace != nil:
		s.resources, err = s.resources.DeleteNamespace(action.DeleteNamespace.Namespace)
	case action.CreatePod != nil:
		s.resources, err = s.resources.CreatePod(action.CreatePod.Namespace, action.CreatePod.Pod, action.CreatePod.Labels)
		if err == nil {
			s.created++
			s.resources.Pods[len(s.resources.Pods)-1].IP = fmt.Sprintf("192.168.9.%d", s.created)
		}
	case action.SetPodLabels != nil:
		s.resources, err = s.resources.SetPodLabels(action.SetPodLabels.Namespace, action.SetPodLabels.Pod, action.SetPodLabels.Labels)
	case action.DeletePod != nil:
		s.resources, err = s.resources.DeletePod(action.DeletePod.Namespace, action.DeletePod.Pod)
	case action.ReadNetworkPolicies != nil:
		// There is nothing to read but what the case has made.
	default:
		err = fmt.Errorf("an action that is not known")
	}
	return err
}

// Kubernetes' own validation asks for policyTypes; labels of namespaces get their name's from the API server.
func (s *state) toCase(name string) *exchange.Case {
	one := &exchange.Case{Name: name, Policies: s.policies}
	for ns, labels := range s.resources.Namespaces {
		all := map[string]string{"kubernetes.io/metadata.name": ns}
		for key, value := range labels {
			all[key] = value
		}
		one.Namespaces = append(one.Namespaces, &v1.Namespace{TypeMeta: metav1.TypeMeta{Kind: "Namespace", APIVersion: "v1"},
			ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: all}})
	}
	sort.Slice(one.Namespaces, func(i, k int) bool { return one.Namespaces[i].Name < one.Namespaces[k].Name })
	for _, pod := range s.resources.Pods {
		object := pod.KubePod()
		object.TypeMeta = metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}
		object.Status = v1.PodStatus{Phase: v1.PodRunning, PodIP: pod.IP, PodIPs: []v1.PodIP{{IP: pod.IP}}}
		one.Pods = append(one.Pods, object)
	}
	for _, policy := range one.Policies {
		policy.TypeMeta = metav1.TypeMeta{Kind: "NetworkPolicy", APIVersion: "networking.k8s.io/v1"}
	}
	return one
}

func (s *state) probe(one *exchange.Case, config *generator.ProbeConfig) {
	jobs := (&probe.JobBuilder{}).GetJobsForProbeConfig(s.resources, config)
	policies := matcher.BuildNetworkPolicies(true, s.policies)
	for _, job := range jobs.Valid {
		one.Flows = append(one.Flows, exchange.Flow{Source: job.FromIP, Destination: job.ToIP, Port: job.ResolvedPort, Protocol: job.Protocol})
		if policies.IsTrafficAllowed(job.Traffic()).IsAllowed() {
			one.Expected += "1"
		} else {
			one.Expected += "0"
		}
	}
}

func main() {
	logrus.SetLevel(logrus.ErrorLevel)
	out := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out)
	first := resources()
	podIP := first.Pods[len(first.Pods)-1].IP
	for number, testCase := range generator.NewTestCaseGenerator(true, podIP, namespaces, nil, nil).GenerateTestCases() {
		current := &state{resources: resources()}
		for step, what := range testCase.Steps {
			for _, action := range what.Actions {
				if err := current.apply(action); err != nil {
					log.Fatalf("case %d, %s: %v", number+1, testCase.Description, err)
				}
			}
			one := current.toCase(fmt.Sprintf("cyclonus %d.%d: %s", number+1, step+1, testCase.Description))
			current.probe(one, what.Probe)
			if err := encoder.Encode(one); err != nil {
				log.Fatal(err)
			}
		}
	}
	if err := out.Flush(); err != nil {
		log.Fatal(err)
	}
}
