package transport

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/x/rate"
)

// libp2p's own limits are made for the open internet, where many connections from one address are an
// attack: 8 connections an address, one new one every 5 s, 8 of an IPv6 /56. An office of 60 behind
// one VPN address opens two connections a member and more after every change of the network. These
// bound strangers instead, by what has not been let in yet.
const (
	connsPerAddress = 512 // IPv4 address or IPv6 /56
	newPerSecond    = 50  // connections a second and address, after a burst
	newBurst        = 500

	mostGuests       = 512 // incoming connections that have proven nothing yet
	guestsPerAddress = 128 // the same of one IPv4 address or IPv6 /64: an office that comes back at once

	systemConns   = 2048
	peerConns     = 16
	peerStreams   = 4096
	systemStreams = 64 << 10
	systemMemory  = 1 << 30
	peerMemory    = 256 << 20

	keepConns = 400 // connections kept when there are more than mostConns
	mostConns = 500
)

// rates bounds how often an address may open a connection.
func rates(perSecond float64, burst int) *rate.Limiter {
	limit := rate.Limit{RPS: perSecond, Burst: burst}
	return &rate.Limiter{
		SubnetRateLimiter: rate.SubnetLimiter{
			IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: limit}},
			IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: limit}},
			GracePeriod:      time.Minute,
		},
	}
}

// resources is the resource manager: what all peers, one peer and strangers may take of this node.
func resources(r *rate.Limiter) (network.ResourceManager, error) {
	scope := func(conns, streams, memory int) rcmgr.ResourceLimits {
		return rcmgr.ResourceLimits{
			Conns: rcmgr.LimitVal(conns), ConnsInbound: rcmgr.LimitVal(conns), ConnsOutbound: rcmgr.LimitVal(conns), FD: rcmgr.LimitVal(conns),
			Streams: rcmgr.LimitVal(streams), StreamsInbound: rcmgr.LimitVal(streams), StreamsOutbound: rcmgr.LimitVal(streams),
			Memory: rcmgr.LimitVal64(memory),
		}
	}
	system, one := scope(systemConns, systemStreams, systemMemory), scope(peerConns, peerStreams, peerMemory)
	transient := scope(2*mostGuests, 1024, 64<<20)
	limits := rcmgr.PartialLimitConfig{
		System: system, Transient: transient, AllowlistedSystem: system, AllowlistedTransient: transient,
		ServiceDefault: system, ServicePeerDefault: one, ProtocolDefault: system, ProtocolPeerDefault: one, PeerDefault: one,
	}.Build(rcmgr.DefaultLimits.AutoScale())
	manager, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: connsPerAddress}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: connsPerAddress}}),
		rcmgr.WithNetworkPrefixLimit([]rcmgr.NetworkPrefixLimit{}, []rcmgr.NetworkPrefixLimit{}), // loopback too
		rcmgr.WithConnRateLimiters(r), rcmgr.WithMetricsDisabled())
	if err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	return manager, nil
}

// connections is the connection manager: what is closed first when there are too many.
func connections() (*connmgr.BasicConnMgr, error) {
	return connmgr.NewConnManager(keepConns, mostConns, connmgr.WithGracePeriod(time.Minute))
}
