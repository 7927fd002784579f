// Package exchange is what the judges are asked and answer: one JSON object a line. A case is a cluster, as Kubernetes objects, and flows
// in it; an answer is one character a flow, in order: '1' allowed, '0' denied.
package exchange

import (
	"bufio"
	"encoding/json"
	"io"
	"os"

	v1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

type Flow struct {
	Source      string      `json:"source"`
	Destination string      `json:"destination"`
	Port        int         `json:"port"`
	Protocol    v1.Protocol `json:"protocol"`
}

type Case struct {
	Name       string                        `json:"name"`
	Nodes      []string                      `json:"nodes,omitempty"` // the own node's addresses
	Namespaces []*v1.Namespace               `json:"namespaces"`
	Pods       []*v1.Pod                     `json:"pods"`
	Policies   []*networkingv1.NetworkPolicy `json:"policies"`
	Flows      []Flow                        `json:"flows"`
	// What the author of the case expects, in the form of an answer; empty: nothing is said.
	Expected string `json:"expected,omitempty"`
}

type Answer struct {
	Name    string `json:"name"`
	Allowed string `json:"allowed"`
}

// Serve answers the cases on standard input until it ends.
func Serve(judge func(*Case) func(Flow) bool) error {
	decoder := json.NewDecoder(bufio.NewReaderSize(os.Stdin, 1<<20))
	out := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out)
	for {
		var one Case
		if err := decoder.Decode(&one); err == io.EOF {
			return out.Flush()
		} else if err != nil {
			return err
		}
		setDefaults(&one)
		ask := judge(&one)
		allowed := make([]byte, len(one.Flows))
		for i, flow := range one.Flows {
			allowed[i] = '0'
			if ask(flow) {
				allowed[i] = '1'
			}
		}
		if err := encoder.Encode(Answer{Name: one.Name, Allowed: string(allowed)}); err != nil {
			return err
		}
	}
}

// TakesPart is true for a pod that has an address of its own and is not over.
func TakesPart(pod *v1.Pod) bool {
	return !pod.Spec.HostNetwork && pod.Status.Phase != v1.PodSucceeded && pod.Status.Phase != v1.PodFailed
}

// What an API server fills in before anybody sees a policy.
func setDefaults(one *Case) {
	tcp := v1.ProtocolTCP
	ports := func(list []networkingv1.NetworkPolicyPort) {
		for i := range list {
			if list[i].Protocol == nil {
				list[i].Protocol = &tcp
			}
		}
	}
	for _, policy := range one.Policies {
		for i := range policy.Spec.Ingress {
			ports(policy.Spec.Ingress[i].Ports)
		}
		for i := range policy.Spec.Egress {
			ports(policy.Spec.Egress[i].Ports)
		}
		if len(policy.Spec.PolicyTypes) == 0 {
			policy.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
			if len(policy.Spec.Egress) != 0 {
				policy.Spec.PolicyTypes = append(policy.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
			}
		}
	}
}
