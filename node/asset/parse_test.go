package asset

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	rapb "github.com/bazelbuild/remote-apis/build/bazel/remote/asset/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/buildmesh/buildmesh/node/reapi"
)

func TestPublic(t *testing.T) {
	for _, s := range []string{"1.1.1.1", "93.184.215.14", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::"} {
		if !public(netip.MustParseAddr(s)) {
			t.Errorf("%s is public", s)
		}
	}
	for _, s := range []string{
		"127.0.0.1", "127.255.255.255", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
		"169.254.169.254", "100.64.0.1", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1",
		"2001:db8::1", "2001::1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::", "100::1",
	} {
		if public(netip.MustParseAddr(s)) {
			t.Errorf("%s is not public", s)
		}
	}
	if public(netip.Addr{}) {
		t.Error("no address is not public")
	}
}

func TestGuard(t *testing.T) {
	check := guard([]netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")})
	for address, allowed := range map[string]bool{
		"10.1.2.3:80": true, "[::ffff:10.1.2.3]:80": true, "10.2.0.1:80": false, "1.1.1.1:443": true, "localhost:80": false, "": false,
	} {
		if err := check("tcp", address, nil); allowed != (err == nil) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestParseIntegrity(t *testing.T) {
	good := sha256SRI([]byte("x"))
	for name, c := range map[string]struct {
		value string
		sums  int
	}{
		"one":            {good, 1},
		"several":        {" " + good + "\n" + good + "\t", 2},
		"options":        {good + "?a-b", 1},
		"unknown beside": {"crc32-x " + good, 1},
		"nothing":        {"", 0},
		"unknown alone":  {"crc32-x", 0},
		"no algorithm":   {good[7:], 0},
		"hexadecimal":    {"sha256-" + strings.Repeat("ab", 32), 0},
		"short":          {"sha256-YWJj", 0},
		"other length":   {"sha512-" + good[7:], 0},
		"too many":       {strings.Repeat(good+" ", 17), 0},
	} {
		list, err := parseIntegrity(c.value)
		if len(list) != c.sums || (c.sums == 0) != (err != nil) {
			t.Errorf("%s: %d checksums, %v", name, len(list), err)
		}
	}
}

func TestVerifier(t *testing.T) {
	list, err := parseIntegrity(sha256SRI([]byte("other")) + " " + sha256SRI([]byte("ab")))
	if err != nil {
		t.Fatal(err)
	}
	for content, right := range map[string]bool{"ab": true, "a": false, "abc": false, "": false} {
		v := list.verifier()
		for _, b := range []byte(content) {
			if _, err := v.Write([]byte{b}); err != nil {
				t.Fatal(err)
			}
		}
		if v.satisfied() != right {
			t.Errorf("%q: %v", content, !right)
		}
	}
	if v := (integrity{}).verifier(); !v.satisfied() {
		t.Error("no checksum is not satisfied")
	}
}

func TestIdentity(t *testing.T) {
	parse := func(qs ...*rapb.Qualifier) *qualifiers {
		t.Helper()
		q, err := parseQualifiers(qs, 2)
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	secret := qualifier("http_header:Authorization", "Bearer secret")
	q := parse(secret, qualifier("http_header_url:1:x-y", "1"), qualifier("bazel.canonical_id", "a"))
	id := q.identity()
	if len(id) != 3 {
		t.Errorf("%v", id)
	}
	for _, item := range id {
		if strings.Contains(item.Value, "secret") {
			t.Errorf("a secret would be stored: %v", item)
		}
	}
	if other := parse(qualifier("http_header:Authorization", "Bearer other")); slices.Equal(other.identity(), parse(secret).identity()) {
		t.Error("two tokens are one")
	}
	if id := parse(secret, qualifier("checksum.sri", sha256SRI(nil))).identity(); len(id) != 1 {
		t.Errorf("with a checksum: %v", id)
	}
	if h := q.headersFor(0); h.Get("Authorization") != "Bearer secret" || h.Get("X-Y") != "" {
		t.Errorf("%v", h)
	}
	if h := q.headersFor(1); h.Get("X-Y") != "1" {
		t.Errorf("%v", h)
	}
}

func FuzzParseQualifiers(f *testing.F) {
	f.Add("checksum.sri", "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "http_header:A", "b")
	f.Add("http_header_url:0:Range", "x", "vcs.branch", "\xff")
	f.Fuzz(func(t *testing.T, n1, v1, n2, v2 string) {
		q, err := parseQualifiers([]*rapb.Qualifier{qualifier(n1, v1), qualifier(n2, v2)}, 1)
		if err != nil {
			if status.Code(reapi.Status(err)) != codes.InvalidArgument {
				t.Fatalf("%v", err)
			}
			return
		}
		if n1 == n2 {
			t.Fatal("a name twice")
		}
		q.identity()
		for name, values := range q.headersFor(0) {
			if http.CanonicalHeaderKey(name) != name || hopHeaders[name] || strings.ContainsAny(name+strings.Join(values, ""), "\r\n\x00") {
				t.Fatalf("header %q: %q", name, values)
			}
		}
		v := q.integrity.verifier()
		if _, err := v.Write([]byte(v1)); err != nil {
			t.Fatal(err)
		}
		v.satisfied()
	})
}
