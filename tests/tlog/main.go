// Reads a log's folder with Go's own checksum-database packages: the signature, the root, and one proof for each line
// that is asked for are computed by code that is not ours.
//
//	tlog LINES.jsonl [PROOF...]
package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// tiles reads `tile/<level>/<index>[.p/<width>]`; Go's own paths name the height too.
type tiles struct{ dir string }

func (t tiles) Height() int { return 8 }

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range wanted {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(t.dir, path))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func run(lines string, proofs []string) error {
	base := strings.TrimSuffix(lines, ".jsonl")
	key, err := os.ReadFile(base + ".pub")
	if err != nil {
		return err
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(key)))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(base+".tlog", "checkpoint"))
	if err != nil {
		return err
	}
	head, err := open(text, verifier)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(lines)
	if err != nil {
		return err
	}
	entries := bytes.SplitAfter(data, []byte("\n"))
	reader := tlog.TileHashReader(head, tiles{base + ".tlog"})
	for index := int64(0); index < head.N; index++ {
		entry := bytes.TrimSuffix(entries[index], []byte("\n"))
		if open := bytes.LastIndex(entry, []byte(`,"open":{`)); open >= 0 {
			entry = append(entry[:open:open], '}')
		}
		// The proof is made from the tiles by Go, and must prove the line.
		proof, err := tlog.ProveRecord(head.N, index, reader)
		if err != nil {
			return fmt.Errorf("line %d: %w", index, err)
		}
		if err := tlog.CheckRecord(proof, head.N, head.Hash, index, tlog.RecordHash(entry)); err != nil {
			return fmt.Errorf("line %d: %w", index, err)
		}
	}
	for _, path := range proofs {
		if err := check(path, verifier); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	fmt.Printf("%d lines and %d proofs of %s hold\n", head.N, len(proofs), verifier.Name())
	return nil
}

func open(text []byte, verifier note.Verifier) (tlog.Tree, error) {
	signed, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	head := strings.Split(signed.Text, "\n")
	size, err := strconv.ParseInt(head[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	hash, err := tlog.ParseHash(head[2])
	return tlog.Tree{N: size, Hash: hash}, err
}

// check verifies a stand-alone proof, c2sp.org/tlog-proof.
func check(path string, verifier note.Verifier) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	proof, checkpoint, found := bytes.Cut(text, []byte("\n\n"))
	if !found {
		return fmt.Errorf("no checkpoint")
	}
	head, err := open(checkpoint, verifier)
	if err != nil {
		return err
	}
	lines := strings.Split(string(proof), "\n")
	entry, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	if err != nil {
		return err
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	if err != nil {
		return err
	}
	var record tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return err
		}
		record = append(record, hash)
	}
	return tlog.CheckRecord(record, head.N, head.Hash, index, tlog.RecordHash(entry))
}
