// Lints certificates with zlint and verifies their chains as Go does.
//
//	lint ROOT CHAINS: both PEM files; CHAINS holds leaf and issuer again and again. Prints a count, and fails at the
//	first error of a lint or of a path. Notices and warnings are counted by name.
package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log"
	"os"
	"sort"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: lint ROOT CHAINS")
	}
	pool := x509.NewCertPool()
	root := read(os.Args[1])
	chains := read(os.Args[2])
	for _, der := range root {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			log.Fatal(err)
		}
		pool.AddCert(certificate)
	}
	// The rules of RFC 5280 and its kin; those of the web's browsers are about names that no SVID has.
	registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{
		IncludeSources: lint.SourceList{lint.RFC5280, lint.RFC5480, lint.RFC5891, lint.RFC8813, lint.RFC3279},
	})
	if err != nil {
		log.Fatal(err)
	}
	findings := map[string]int{}
	errors := 0
	linted := map[string]bool{}
	for _, der := range append(root, chains...) {
		if linted[string(der)] {
			continue
		}
		linted[string(der)] = true
		certificate, err := zx509.ParseCertificate(der)
		if err != nil {
			log.Fatal(err)
		}
		for name, result := range zlint.LintCertificateEx(certificate, registry).Results {
			switch result.Status {
			case lint.Error, lint.Fatal:
				errors++
				fallthrough
			case lint.Warn, lint.Notice:
				findings[fmt.Sprintf("%s %s: %s", result.Status, name, result.Details)]++
			}
		}
	}
	verified := 0
	for at := 0; at+1 < len(chains); at += 2 {
		leaf, err := x509.ParseCertificate(chains[at])
		if err != nil {
			log.Fatal(err)
		}
		issuer, err := x509.ParseCertificate(chains[at+1])
		if err != nil {
			log.Fatal(err)
		}
		issuers := x509.NewCertPool()
		issuers.AddCert(issuer)
		for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
			options := x509.VerifyOptions{Roots: pool, Intermediates: issuers, KeyUsages: []x509.ExtKeyUsage{usage}}
			if _, err := leaf.Verify(options); err != nil {
				log.Fatalf("serial %x: %v", leaf.SerialNumber, err)
			}
		}
		verified++
	}
	names := make([]string, 0, len(findings))
	for name := range findings {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Printf("%6d  %s\n", findings[name], name)
	}
	fmt.Printf("%d certificates linted, %d errors; %d chains verified by Go\n", len(linted), errors, verified)
	if errors > 0 || verified == 0 {
		os.Exit(1)
	}
}

func read(path string) [][]byte {
	text, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	var found [][]byte
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return found
		}
		if block.Type == "CERTIFICATE" {
			found = append(found, block.Bytes)
		}
		text = rest
	}
}
