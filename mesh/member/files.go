package member

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/buildmesh/buildmesh/mesh/trust"
)

// Names of the files in the Seat's directory.
const (
	seatFile    = "seat.json"    // charter, certificate, secrets
	ledgerFile  = "invites.json" // invites given and whom they admitted
	membersFile = "members.json" // certificates seen; may be lost
)

// seatRecord is seatFile.
type seatRecord struct {
	Charter     []byte       `json:"charter"`
	Certificate []byte       `json:"certificate"`
	Secrets     []sealed     `json:"secrets"` // newest first
	Index       trust.Secret `json:"index"`
}

// sealed is the secret of one epoch.
type sealed struct {
	Epoch  uint64       `json:"epoch"`
	Secret trust.Secret `json:"secret"`
}

// read loads a JSON file into value; a missing one is fs.ErrNotExist.
func read(dir, name string, value any) error {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, value); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
	}
	return nil
}

// write replaces a JSON file in one step; when it returns, the file is on disk.
func write(dir, name string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, name+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(data)
	if err == nil {
		err = temp.Sync()
	}
	if err = errors.Join(err, temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename durable, where the system can.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	_ = d.Sync() // not every system can
	return nil
}

// readSeat loads and verifies what Open needs. It fails with fs.ErrNotExist at the first start.
func (s *Seat) readSeat() error {
	var record seatRecord
	if err := read(s.dir, seatFile, &record); err != nil {
		return err
	}
	charter, err := trust.ParseCharter(record.Charter)
	if err != nil {
		return err
	}
	certificate, err := trust.ParseCertificate(record.Certificate)
	if err != nil {
		return err
	}
	if certificate.Peer != s.identity.ID() {
		return fmt.Errorf("%s belongs to %s, this node is %s; remove the directory to start anew: %w",
			filepath.Join(s.dir, seatFile), certificate.Peer.Short(), s.identity.ID().Short(), trust.ErrForged)
	}
	s.charter, s.certificate, s.secrets, s.index = charter, certificate, record.Secrets, record.Index
	return nil
}

// writeSeat stores the next state and takes the secret of the index from it, as soon as it can be opened. s.mu must be
// held; the rest of memory is changed by the caller, after it.
func (s *Seat) writeSeat(charter *trust.Charter, certificate *trust.Certificate, secrets []sealed) error {
	index := s.index
	if len(secrets) > 0 && secrets[0].Epoch == charter.Epoch {
		index = charter.OpenIndex(secrets[0].Secret)
	}
	err := write(s.dir, seatFile, seatRecord{charter.Marshal(), certificate.Marshal(), secrets, index})
	if err != nil {
		return fmt.Errorf("store membership: %w", err)
	}
	s.index = index
	return nil
}

// readRest loads the ledger and the certificates seen; what does not hold any more is left out.
func (s *Seat) readRest() error {
	if err := read(s.dir, ledgerFile, &s.ledger); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var seen [][]byte
	if err := read(s.dir, membersFile, &seen); err != nil {
		return nil // it may be lost
	}
	for _, data := range seen {
		if c, err := trust.ParseCertificate(data); err == nil && s.charter.Check(c, s.now()) == nil {
			s.members[c.Peer] = c
		}
	}
	return nil
}

// writeMembers stores the certificates seen. s.mu must be held. That it fails harms nobody: they are
// shown again.
func (s *Seat) writeMembers() {
	seen := make([][]byte, 0, len(s.members))
	for _, c := range s.members {
		seen = append(seen, c.Marshal())
	}
	_ = write(s.dir, membersFile, seen)
}

// RootFile is where the root key is when this node founded the mesh and nobody said otherwise.
func (s *Seat) RootFile() string { return filepath.Join(s.dir, trust.RootFile) }

// setAside keeps the root key of a mesh this node goes away from, under another name.
func (s *Seat) setAside() error {
	root, err := trust.LoadRoot(s.RootFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Rename(s.RootFile(), filepath.Join(s.dir, "root-"+root.ID().Short()+".pem"))
}
