package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	controlv1 "github.com/buildmesh/buildmesh/proto/control/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// TestSignedRows: each result with its signer, who else has it and what it is called, if that is known.
func TestSignedRows(t *testing.T) {
	got := signedRows(&controlv1.ListResponse{Results: []*controlv1.SignedResult{
		{Action: "9f2c11d07a3be50c4d1e/142", Signer: "ana", Completed: timestamppb.New(whyNow.Add(-time.Minute)), Outputs: 2, Complete: true,
			Providers: strings.Fields("ben cleo dan eva"), About: "CppCompile //app:grep"},
		{Action: "77aa77aa77aa77aa77aa/90", Signer: "b\x1b[31men", Completed: timestamppb.New(whyNow), About: "gcc \x1b[2J"},
		{Action: "88aa77aa77aa77aa77aa/90", Signer: "ben", Completed: timestamppb.New(whyNow)},
	}, More: 1200}, whyNow)
	want := []string{"ACTION\tSIGNER\tAGE\tOUTPUTS\tHERE\tALSO AT\tTARGET",
		"9f2c11d07a3be50c\tana\t1 min 0 s\t2\tyes\tben, cleo, dan and 1 more\tCppCompile //app:grep",
		"77aa77aa77aa77aa\tben\t0 ms\t0\tno\t-\tgcc ", "88aa77aa77aa77aa\tben\t0 ms\t0\tno\t-\t-",
		"and 1,200 more; see them with --limit"}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

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
