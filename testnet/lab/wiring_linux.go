package lab

import (
	"fmt"
	"net/netip"
)

// Partition cuts the groups off from each other and from the machines in none of them. It replaces the partition or
// the slow wires there were. Nobody is told: frames vanish.
func (l *Lab) Partition(groups ...[]string) error { return l.split(groups, nil) }

// Slow puts slow wires between the groups. Machines in no group are joined to each group by half of it.
func (l *Lab) Slow(link Link, groups ...[]string) error { return l.split(groups, &link) }

func (l *Lab) split(groups [][]string, link *Link) error {
	var all [][]*port
	seen := map[string]bool{}
	for _, group := range groups {
		var ports []*port
		for _, name := range group {
			n := l.Node(name)
			if n == nil || seen[name] {
				return fmt.Errorf("partition: node %s is unknown or named twice", name)
			}
			seen[name] = true
			ports = append(ports, n.port)
		}
		all = append(all, ports)
	}
	return l.network.split(all, link)
}

// Heal joins all machines on one switch again and ends every loss.
func (l *Lab) Heal() error { return l.network.heal() }

// Lose makes everything vanish that one machine sends to the other, but not what it sends to all (multicast,
// broadcast). The other direction works.
func (l *Lab) Lose(from, to string) error {
	a, b := l.Node(from), l.Node(to)
	if a == nil || b == nil {
		return fmt.Errorf("lose: %s or %s is unknown", from, to)
	}
	return l.network.lose(a.port, b.Address())
}

// Move gives the machine another address; the zero value: the next free one.
func (n *Node) Move(address netip.Addr) error {
	if !address.IsValid() {
		address = n.lab.network.free()
	}
	return n.lab.network.move(n.port, address)
}

// Unplug takes the machine's cable out; its interface knows.
func (n *Node) Unplug() error { return n.lab.network.carrier(n.port, false) }

// Plug puts the machine's cable in again.
func (n *Node) Plug() error { return n.lab.network.carrier(n.port, true) }
