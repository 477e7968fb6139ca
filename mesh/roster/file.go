package roster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/buildmesh/buildmesh/mesh/peer"
)

// File is the name of the roster's file in the state directory.
const File = "roster.json"

// fileVersion is raised when an older program could misread the file. A file of a newer version is set
// aside like a damaged one: it holds nothing that gossip does not bring again.
const fileVersion = 1

// maxFile bounds what is read: MaxMembers of about 1 KiB.
const maxFile = 8 << 20

// stored is the file.
type stored struct {
	Version int      `json:"version"`
	Members []record `json:"members"`
}

// record is one member in the file.
type record struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Site    string    `json:"site,omitempty"`
	Roles   uint8     `json:"roles,omitempty"`
	Gossip  string    `json:"gossip"`
	Control string    `json:"control,omitempty"`
	Bulk    string    `json:"bulk,omitempty"`
	Met     time.Time `json:"met,omitzero"` // files of before have none: who is in them is known for ever
	Since   time.Time `json:"since"`
}

func path(dir string) string { return filepath.Join(dir, File) }

// load reads the file. One that is not there is empty; one that cannot be understood is renamed to *.bad
// and reported.
func load(file string) ([]Member, error) {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var data []byte
	if err == nil && info.Size() > maxFile {
		err = fmt.Errorf("%d bytes, at most %d", info.Size(), maxFile)
	}
	if err == nil {
		data, err = os.ReadFile(file)
	}
	var members []Member
	if err == nil {
		members, err = decode(data)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("roster %s cannot be read and is set aside: %w", file, err), os.Rename(file, file+".bad"))
	}
	return members, nil
}

// decode reads the text of a file. Records that make no sense are left out.
func decode(data []byte) ([]Member, error) {
	var s stored
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, err
	}
	if s.Version != fileVersion {
		return nil, fmt.Errorf("version %d, this program knows %d", s.Version, fileVersion)
	}
	var members []Member
	for _, r := range s.Members {
		id, err := peer.Parse(r.ID)
		if err != nil {
			continue
		}
		gossip, err := netip.ParseAddrPort(r.Gossip)
		if err != nil {
			continue
		}
		m := Member{ID: id, Name: r.Name, Site: r.Site, Roles: r.Roles, Gossip: gossip, Met: r.Met, Since: r.Since}
		m.Control, _ = netip.ParseAddrPort(r.Control) // absent: learnt when it is seen
		m.Bulk, _ = netip.ParseAddrPort(r.Bulk)
		members = append(members, m)
		if len(members) == MaxMembers {
			break
		}
	}
	return members, nil
}

// encode is the text of a file.
func encode(members []Member) ([]byte, error) {
	s := stored{Version: fileVersion}
	for _, m := range members {
		if m.State == Left || !m.Gossip.IsValid() {
			continue // nobody to look for
		}
		r := record{ID: m.ID.String(), Name: m.Name, Site: m.Site, Roles: m.Roles, Gossip: m.Gossip.String(), Met: m.Met.UTC(), Since: m.Since.UTC()}
		if m.Control.IsValid() {
			r.Control = m.Control.String()
		}
		if m.Bulk.IsValid() {
			r.Bulk = m.Bulk.String()
		}
		s.Members = append(s.Members, r)
	}
	return json.MarshalIndent(s, "", " ")
}

// store replaces the file in one step.
func store(file string, members []Member) error {
	data, err := encode(members)
	if err != nil {
		return fmt.Errorf("write roster %s: %w", file, err)
	}
	temp, err := os.CreateTemp(filepath.Dir(file), File+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write roster: %w", err)
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("write roster %s: %w", file, err)
	}
	return nil
}
