// Judges with cyclonus: what its `analyze --mode query-traffic` does, for many flows.
package main

import (
	"log"
	"net"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	v1 "k8s.io/api/core/v1"

	"vsocket/test/oracles/exchange"
)

type side struct {
	pod  *v1.Pod
	peer *matcher.TrafficPeer
}

func sides(one *exchange.Case) func(string) side {
	labels := map[string]map[string]string{}
	for _, namespace := range one.Namespaces {
		labels[namespace.Name] = namespace.Labels
	}
	pods := map[string]*v1.Pod{}
	for _, pod := range one.Pods {
		if !exchange.TakesPart(pod) {
			continue
		}
		for _, ip := range pod.Status.PodIPs {
			pods[net.ParseIP(ip.IP).String()] = pod
		}
	}
	return func(address string) side {
		pod, known := pods[net.ParseIP(address).String()]
		if !known {
			return side{nil, &matcher.TrafficPeer{IP: address}}
		}
		internal := &matcher.InternalPeer{PodLabels: pod.Labels, NamespaceLabels: labels[pod.Namespace], Namespace: pod.Namespace}
		return side{pod, &matcher.TrafficPeer{IP: address, Internal: internal}}
	}
}

// It takes one name a port. Where containers give one port several, each is asked about; none is a name too.
func names(pod *v1.Pod, flow exchange.Flow) []string {
	all := []string{""}
	if pod == nil {
		return all
	}
	for _, container := range pod.Spec.Containers {
		for _, port := range container.Ports {
			if int(port.ContainerPort) == flow.Port && port.Protocol == flow.Protocol && port.Name != "" {
				all = append(all, port.Name)
			}
		}
	}
	return all
}

func judge(one *exchange.Case) func(exchange.Flow) bool {
	policies := matcher.BuildNetworkPolicies(true, one.Policies)
	sideOf := sides(one)
	return func(flow exchange.Flow) bool {
		source, destination := sideOf(flow.Source), sideOf(flow.Destination)
		ingress, egress := false, false
		for _, name := range names(destination.pod, flow) {
			result := policies.IsTrafficAllowed(&matcher.Traffic{Source: source.peer, Destination: destination.peer,
				ResolvedPort: flow.Port, ResolvedPortName: name, Protocol: flow.Protocol})
			ingress = ingress || result.Ingress.IsAllowed()
			egress = egress || result.Egress.IsAllowed()
		}
		return ingress && egress
	}
}

func main() {
	if err := exchange.Serve(judge); err != nil {
		log.Fatal(err)
	}
}
