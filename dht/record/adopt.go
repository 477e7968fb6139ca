package record

// Reserve promises n bytes of room to a value that is being written, evicting if it must.
// Every reservation ends with Unreserve or Adopt. Errors: ErrFull, ErrClosed.
func (l *Log) Reserve(n int64) error {
	if err := l.begin(); err != nil {
		return err
	}
	defer l.end()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.room(n); err != nil {
		return err
	}
	l.reserved += n
	return nil
}

// Unreserve takes back a promise.
func (l *Log) Unreserve(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reserved -= n
}

// Adopt makes an external value of size bytes present: it tells the journal that files of key may
// come to exist, calls place to bring them to their place, and tells that they are there. A crash
// in between leaves nothing. The caller must hold a reservation of size bytes, which ends here.
// When place fails, the owner is asked to remove what it left.
func (l *Log) Adopt(key Key, size int64, place func() error) error {
	if err := l.begin(); err != nil {
		l.Unreserve(size)
		return err
	}
	defer l.end()
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() { l.reserved -= size }()
	intent := line{kind: kindIntent, key: key}
	if err := l.enter(&intent); err != nil {
		return err
	}
	l.mu.Unlock()
	err := place()
	l.mu.Lock()
	if err == nil {
		err = l.settle(key, size)
	}
	l.leave(key)
	return err
}

// enter waits until no file of the line's key is going, tells the journal of the intent, and keeps
// eviction away from the key until leave. mu is held, and released while waiting.
func (l *Log) enter(intent *line) error {
	for l.busy[intent.key] < 0 {
		l.changed.Wait()
	}
	err := l.retry(0, func() error { return l.write(intent.append(nil), false) })
	if err == nil {
		l.busy[intent.key]++
	}
	return err
}

// settle tells that the file is in its place and makes the entry visible. mu is held.
func (l *Log) settle(key Key, size int64) error {
	p := l.index.find(&key)
	n := line{kind: kindAdopt, flags: flagExternal, key: key, size: size}
	if p != 0 {
		n.flags |= l.index.at(p).flags & flagDoubled
	}
	if err := l.write(n.append(nil), true); err != nil {
		return err
	}
	if p == 0 {
		p = l.enlist(&key)
	} else {
		l.release(l.index.at(p))
	}
	e := l.index.at(p)
	e.flags = e.flags&flagPinned | flagUsed | n.flags
	e.size, e.used = size, 0
	l.external += e.charge()
	l.unsynced[key] = struct{}{}
	delete(l.stray, key)
	l.touch(p, l.now())
	return nil
}

// leave ends what enter began; the last one to leave a key that has no entry removes its files.
// mu is held, and released during the removal.
func (l *Log) leave(key Key) {
	if l.busy[key]--; l.busy[key] > 0 {
		return
	}
	delete(l.busy, key)
	if l.index.find(&key) == 0 {
		l.busy[key] = -1
		l.removeFiles([]Key{key})
	}
	l.changed.Broadcast()
}

// Double tells that the owner keeps a second copy of key's file, of the same size, made by place
// under a path that Owner.Remove removes too. The caller must hold a reservation of the size, which
// ends here. It reports false when key is not there any more.
func (l *Log) Double(key Key, size int64, place func() error) (bool, error) {
	if err := l.begin(); err != nil {
		l.Unreserve(size)
		return false, err
	}
	defer l.end()
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() { l.reserved -= size }()
	intent := line{kind: kindIntent, key: key}
	if err := l.enter(&intent); err != nil {
		return false, err
	}
	defer l.leave(key)
	if l.index.find(&key) == 0 {
		return false, nil
	}
	l.mu.Unlock()
	err := place()
	l.mu.Lock()
	p := l.index.find(&key)
	if err != nil || p == 0 {
		return false, err
	}
	e := l.index.at(p)
	n := line{kind: kindAdopt, flags: flagExternal | flagDoubled, key: key, size: e.size}
	if err := l.write(n.append(nil), true); err != nil {
		return false, err
	}
	l.external -= e.charge()
	e.flags |= flagDoubled
	l.external += e.charge()
	return true, nil
}

// Delete removes what is stored under key, whatever its leases and pins, and reports whether
// there was something. An external value's files are removed by the owner before Delete returns.
func (l *Log) Delete(key Key) (bool, error) {
	if err := l.begin(); err != nil {
		return false, err
	}
	defer l.end()
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.busy[key] != 0 {
		l.changed.Wait()
	}
	p := l.index.find(&key)
	if p == 0 {
		return false, nil
	}
	return true, l.removeAll([]place{p})
}

// removeAll removes entries: told first, then out of the index, then the files. mu is held, and
// released while files are removed.
func (l *Log) removeAll(places []place) error {
	lines := make([]byte, 0, len(places)*lineSize)
	for _, p := range places {
		e := l.index.at(p)
		n := line{kind: kindRemove, flags: e.flags & flagExternal, key: e.key}
		lines = n.append(lines)
	}
	if err := l.write(lines, true); err != nil {
		return err
	}
	var files []Key
	for _, p := range places {
		e := l.index.at(p)
		if e.flags&flagExternal != 0 {
			files = append(files, e.key)
			l.busy[e.key] = -1
		}
		l.drop(p)
	}
	l.removeFiles(files)
	return nil
}

// removeFiles has the owner remove the files of keys that are marked as going. mu is held, and
// released meanwhile. What the owner cannot remove is tried again by the next Open.
func (l *Log) removeFiles(keys []Key) {
	if len(keys) == 0 {
		return
	}
	l.mu.Unlock()
	failed := map[Key]bool{}
	for _, key := range keys {
		if l.options.Owner.Remove(key) != nil {
			failed[key] = true
		}
	}
	l.mu.Lock()
	for _, key := range keys {
		delete(l.busy, key)
		if failed[key] {
			l.stray[key] = struct{}{}
		} else {
			l.gone = append(l.gone, key)
		}
	}
	l.changed.Broadcast()
}

// Pin keeps what is stored under the keys from being evicted, and tells for each whether it was
// there. Every key told as present must be given to Unpin once.
func (l *Log) Pin(keys []Key, present []bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range keys {
		p := l.index.find(&keys[i])
		present[i] = p != 0 && !l.closed
		if !present[i] {
			continue
		}
		l.pins[keys[i]]++
		if e := l.index.at(p); e.flags&flagPinned == 0 {
			l.index.unlink(p)
			e.flags |= flagPinned
		}
	}
}

// Unpin takes back one pin of each key. An entry without pins is as recently used as any.
func (l *Log) Unpin(keys []Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for i := range keys {
		if l.pins[keys[i]]--; l.pins[keys[i]] > 0 {
			continue
		}
		delete(l.pins, keys[i])
		p := l.index.find(&keys[i])
		if p == 0 {
			continue
		}
		e := l.index.at(p)
		e.flags &^= flagPinned
		e.used = now
		l.index.pushFront(p)
	}
}

// enlist makes an entry for an absent key; pins that outlived a removal hold again. mu is held.
func (l *Log) enlist(key *Key) place {
	p := l.index.add(key)
	if l.pins[*key] > 0 {
		l.index.at(p).flags |= flagPinned
		return p
	}
	l.index.pushFront(p)
	return p
}
