// Follows secrets with go-control-plane's xDS client, unchanged, and checks each as Envoy would.
//
//	sds SOCKET COUNT: takes COUNT different certificates, prints each serial, and fails unless each chain leads to the
//	anchors of the SPIFFE validator that came with it.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	sotw "github.com/envoyproxy/go-control-plane/pkg/client/sotw/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/anypb"
)

const secretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: sds SOCKET COUNT")
	}
	count, err := strconv.Atoi(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(count)*15*time.Second)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	client := sotw.NewADSClient(ctx, &core.Node{Id: "interop"}, secretType)
	if err := client.InitConnect(conn); err != nil {
		log.Fatal(err)
	}
	seen := map[string]bool{}
	for len(seen) < count {
		response, err := client.Fetch()
		if err != nil {
			log.Fatalf("after %d certificates: %v", len(seen), err)
		}
		serial, err := check(response.Resources)
		if err != nil {
			_ = client.Nack(err.Error())
			log.Fatal(err)
		}
		seen[serial] = true
		fmt.Printf("certificate %d: serial %s\n", len(seen), serial)
		if err := client.Ack(); err != nil {
			log.Fatal(err)
		}
	}
}

// check verifies every certificate among the secrets against the validators among them.
func check(resources []*anypb.Any) (string, error) {
	roots := map[string]*x509.CertPool{}
	var pairs []tls.Certificate
	for _, resource := range resources {
		secret := &tlsv3.Secret{}
		if err := resource.UnmarshalTo(secret); err != nil {
			return "", err
		}
		if context := secret.GetValidationContext(); context != nil {
			config := &tlsv3.SPIFFECertValidatorConfig{}
			if err := context.GetCustomValidatorConfig().GetTypedConfig().UnmarshalTo(config); err != nil {
				return "", err
			}
			if err := context.ValidateAll(); err != nil {
				return "", err
			}
			for _, domain := range config.GetTrustDomains() {
				pool := x509.NewCertPool()
				if !pool.AppendCertsFromPEM(domain.GetTrustBundle().GetInlineBytes()) {
					return "", fmt.Errorf("no anchors of %s", domain.GetName())
				}
				roots[domain.GetName()] = pool
			}
		}
		if certificate := secret.GetTlsCertificate(); certificate != nil {
			pair, err := tls.X509KeyPair(
				certificate.GetCertificateChain().GetInlineBytes(), certificate.GetPrivateKey().GetInlineBytes())
			if err != nil {
				return "", err
			}
			if block, _ := pem.Decode(certificate.GetPrivateKey().GetInlineBytes()); block.Type != "PRIVATE KEY" {
				return "", fmt.Errorf("the key is a %s", block.Type)
			}
			pairs = append(pairs, pair)
		}
	}
	if len(pairs) == 0 {
		return "", fmt.Errorf("no certificate among %d secrets", len(resources))
	}
	for _, pair := range pairs {
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			return "", err
		}
		issuers := x509.NewCertPool()
		for _, der := range pair.Certificate[1:] {
			issuer, err := x509.ParseCertificate(der)
			if err != nil {
				return "", err
			}
			issuers.AddCert(issuer)
		}
		pool, known := roots[leaf.URIs[0].Host]
		if !known {
			return "", fmt.Errorf("no validator for %s", leaf.URIs[0])
		}
		options := x509.VerifyOptions{
			Roots: pool, Intermediates: issuers, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		}
		if _, err := leaf.Verify(options); err != nil {
			return "", err
		}
	}
	leaf, err := x509.ParseCertificate(pairs[0].Certificate[0])
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", leaf.SerialNumber), nil
}
