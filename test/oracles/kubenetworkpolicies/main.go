// Judges with sigs.k8s.io/kube-network-policies: its controller, given the objects through its informers' stores, is asked about one packet
// after another, as its packet queue would.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	_ "unsafe" // for go:linkname

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/klog/v2"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
	npafake "sigs.k8s.io/network-policy-api/pkg/client/clientset/versioned/fake"
	npainformers "sigs.k8s.io/network-policy-api/pkg/client/informers/externalversions"

	"vsocket/test/oracles/exchange"
)

// The package keeps both to itself; this is its layout in v0.8.0.
type packet struct {
	id               uint32
	family           v1.IPFamily
	srcIP, dstIP     net.IP
	proto            v1.Protocol
	srcPort, dstPort int
	payload          []byte
}

//go:linkname evaluatePacket sigs.k8s.io/kube-network-policies/pkg/networkpolicy.(*Controller).evaluatePacket
func evaluatePacket(c *networkpolicy.Controller, ctx context.Context, p packet) bool

func family(ip net.IP) v1.IPFamily {
	if ip.To4() != nil {
		return v1.IPv4Protocol
	}
	return v1.IPv6Protocol
}

func judge(one *exchange.Case) func(exchange.Flow) bool {
	client := fake.NewSimpleClientset()
	factory := informers.NewSharedInformerFactory(client, 0)
	npaClient := npafake.NewSimpleClientset()
	npaFactory := npainformers.NewSharedInformerFactory(npaClient, 0)
	controller, err := networkpolicy.NewController(client,
		factory.Networking().V1().NetworkPolicies(), factory.Core().V1().Namespaces(), factory.Core().V1().Pods(),
		factory.Core().V1().Nodes(), npaClient, npaFactory.Policy().V1alpha1().AdminNetworkPolicies(),
		npaFactory.Policy().V1alpha1().BaselineAdminNetworkPolicies(), networkpolicy.Config{NodeName: "node"})
	if err != nil {
		log.Fatal(err)
	}
	add := func(err error) {
		if err != nil {
			log.Fatal(err)
		}
	}
	for _, namespace := range one.Namespaces {
		add(factory.Core().V1().Namespaces().Informer().GetStore().Add(namespace))
	}
	for _, pod := range one.Pods {
		add(factory.Core().V1().Pods().Informer().GetStore().Add(pod))
	}
	for _, policy := range one.Policies {
		add(factory.Networking().V1().NetworkPolicies().Informer().GetStore().Add(policy))
	}
	return func(flow exchange.Flow) bool {
		source, destination := net.ParseIP(flow.Source), net.ParseIP(flow.Destination)
		return evaluatePacket(controller, context.Background(), packet{
			family: family(source), srcIP: source, dstIP: destination, proto: flow.Protocol, srcPort: 52345, dstPort: flow.Port,
		})
	}
}

func main() {
	klog.InitFlags(nil)
	_ = flag.Set("logtostderr", "false")
	_ = flag.Set("stderrthreshold", "FATAL")
	flag.Parse()
	if err := exchange.Serve(judge); err != nil {
		log.Fatal(err)
	}
}
