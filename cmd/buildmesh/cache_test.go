package main

import (
	"strings"
	"testing"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
)

// TestSharingRows: who signed and who else has, the many cut short, and nothing where nothing is shared.
func TestSharingRows(t *testing.T) {
	for _, nothing := range []*controlv1.SharingResponse{nil, {}} {
		if rows := sharingRows(nothing); rows != nil {
			t.Errorf("rows %q for %v", rows, nothing)
		}
	}
	answer := &controlv1.SharingResponse{Results: 1200, Alone: 3, Members: []*controlv1.MemberShare{{Name: "ana", Signed: 1199}}}
	for _, name := range strings.Fields("ben cleo dan eva fritz gerd hans ida jo kai") {
		answer.Members = append(answer.Members, &controlv1.MemberShare{Name: name, Provided: 1})
	}
	want := "shared\t1,200 signed results, 3 of them only here (buildmesh cache ls)\nsigned by\tana 1,199\n" +
		"also at\tben 1, cleo 1, dan 1, eva 1, fritz 1, gerd 1, hans 1, ida 1 and 2 more"
	if got := strings.Join(sharingRows(answer), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
