package awsclient

import "net/netip"

// ec2Local is the prefix in which EC2 gives IPv6 addresses to what is on the instance itself:
// the metadata service (fd00:ec2::254) and EKS Pod Identity's agent (fd00:ec2::23), as the Amazon
// EC2 and EKS User Guides have them. The IPv4 ones are link-local: 169.254.169.254, 169.254.170.23, and 169.254.170.2 of ECS.
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
