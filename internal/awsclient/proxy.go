package awsclient

import (
	"net/http"
	"net/netip"
	"net/url"
)

// ec2Local is the prefix in which EC2 gives IPv6 addresses to what is on the instance itself:
// the metadata service (fd00:ec2::254) and EKS Pod Identity's agent (fd00:ec2::23). The IPv4
// ones are link-local: 169.254.169.254, 169.254.170.23, and 169.254.170.2 of ECS.
var ec2Local = netip.MustParsePrefix("fd00:ec2::/32")

// nodeLocal says whether host is an address that means the node itself, whichever node that
// is: another machine that is asked for it, such as a proxy, answers for itself.
func nodeLocal(host string) bool {
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	ip = ip.Unmap()
	return ip.IsLinkLocalUnicast() || ec2Local.Contains(ip)
}

// proxyFor is the proxy of a request: the one that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name.
// There is none for addresses of the node itself, whatever NO_PROXY says: requests for
// credentials have the pod's token in them, and the answers have the credentials.
func proxyFor(r *http.Request) (*url.URL, error) {
	if nodeLocal(r.URL.Hostname()) {
		return nil, nil
	}
	return http.ProxyFromEnvironment(r)
}
