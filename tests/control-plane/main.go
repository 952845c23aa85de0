// One binary with all that a Kubernetes control plane needs: the first argument says which program it is.
//
// The tests start it once as etcd, once as kube-apiserver, once as kube-controller-manager, as kube-proxy on each node that shall
// have one, and as kubectl for each command. One binary, since they share most of their code: linked apart they would take several
// times the time and the disk.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
)

func main() {
	if len(os.Args) < 2 {
		refuse("no program named")
	}
	name := os.Args[1]
	// Each program reads os.Args as if it had been started by its own name.
	os.Args = os.Args[1:]
	switch name {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kube-apiserver":
		os.Exit(run(apiserver.NewAPIServerCommand()))
	case "kube-controller-manager":
		os.Exit(run(controllers.NewControllerManagerCommand()))
	case "kube-proxy":
		os.Exit(run(proxy.NewProxyCommand()))
	case "kubectl":
		os.Exit(run(kubectl.NewDefaultKubectlCommand()))
	default:
		refuse(fmt.Sprintf("unknown program %q", name))
	}
}

func run(command *cobra.Command) int {
	return cli.Run(command)
}

func refuse(why string) {
	fmt.Fprintf(os.Stderr, "%s; usage: control-plane etcd|kube-apiserver|kube-controller-manager|kube-proxy|kubectl ARGUMENTS\n", why)
	os.Exit(2)
}
