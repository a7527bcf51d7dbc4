// Federation with go-spiffe's own package, from both sides.
//
//	federation fetch-spiffe TRUST_DOMAIN URL ENDPOINT_ID BUNDLE.json
//	federation fetch-web TRUST_DOMAIN URL ROOTS.pem
//	federation serve TRUST_DOMAIN LISTEN           as the workload whose Workload API is in SPIFFE_ENDPOINT_SOCKET
//
// Fetching prints sequence, refresh hint and numbers of keys, and fails if the endpoint does not prove who it is.
package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/federation"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	if len(args) < 3 {
		return fmt.Errorf("see the head of this file")
	}
	domain, err := spiffeid.TrustDomainFromString(args[1])
	if err != nil {
		return err
	}
	switch {
	case args[0] == "fetch-spiffe" && len(args) == 5:
		id, err := spiffeid.FromString(args[3])
		if err != nil {
			return err
		}
		first, err := spiffebundle.Load(domain, args[4])
		if err != nil {
			return err
		}
		return fetch(domain, args[2], federation.WithSPIFFEAuth(first, id))
	case args[0] == "fetch-web" && len(args) == 4:
		pem, err := os.ReadFile(args[3])
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		return fetch(domain, args[2], federation.WithWebPKIRoots(roots))
	case args[0] == "serve" && len(args) == 3:
		return serve(domain, args[2])
	}
	return fmt.Errorf("see the head of this file")
}

func fetch(domain spiffeid.TrustDomain, url string, how federation.FetchOption) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	bundle, err := federation.FetchBundle(ctx, domain, url, how)
	if err != nil {
		return err
	}
	sequence, ok := bundle.SequenceNumber()
	if !ok {
		return fmt.Errorf("the bundle has no sequence")
	}
	hint, ok := bundle.RefreshHint()
	if !ok {
		return fmt.Errorf("the bundle has no refresh hint")
	}
	fmt.Printf("sequence %d, refresh hint %s, %d X.509 authorities, %d JWT authorities\n",
		sequence, hint, len(bundle.X509Authorities()), len(bundle.JWTAuthorities()))
	return nil
}

// serve publishes what the Workload API gives as bundle, under the SVID that it gives: profile https_spiffe.
func serve(domain spiffeid.TrustDomain, listen string) error {
	ctx := context.Background()
	svids, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	bundles, err := workloadapi.NewBundleSource(ctx)
	if err != nil {
		return err
	}
	handler, err := federation.NewHandler(domain, numbered{bundles})
	if err != nil {
		return err
	}
	server := &http.Server{
		Addr:              listen,
		Handler:           handler,
		TLSConfig:         tlsconfig.TLSServerConfig(svids),
		ReadHeaderTimeout: 5 * time.Second,
	}
	return server.ListenAndServeTLS("", "")
}

// numbered gives bundles of the Workload API, which have no sequence, one that grows.
type numbered struct{ of *workloadapi.BundleSource }

func (n numbered) GetBundleForTrustDomain(domain spiffeid.TrustDomain) (*spiffebundle.Bundle, error) {
	bundle, err := n.of.GetBundleForTrustDomain(domain)
	if err != nil {
		return nil, err
	}
	bundle = bundle.Clone()
	bundle.SetSequenceNumber(uint64(time.Now().Unix()))
	bundle.SetRefreshHint(time.Minute)
	return bundle, nil
}
