// What `kubectl exec` does, by the code that it does it with: a connection upgraded to SPDY, with several streams.
//
//	spdy serve           each stream gets back what it sends, in upper case
//	spdy call HOST:PORT  three streams; fails unless each gets its own answer
package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"

	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
)

func serve(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		accept := func(stream httpstream.Stream, _ <-chan struct{}) error {
			go func() {
				sent, _ := io.ReadAll(stream)
				_, _ = stream.Write(bytes.ToUpper(sent))
				_ = stream.Close()
			}()
			return nil
		}
		connection := spdy.NewResponseUpgrader().UpgradeResponse(w, r, accept)
		if connection != nil {
			<-connection.CloseChan()
		}
	}))
}

func call(host string) error {
	transport, err := spdy.NewRoundTripper(nil)
	if err != nil {
		return err
	}
	request := &http.Request{Method: "POST", URL: &url.URL{Scheme: "http", Host: host, Path: "/exec"}, Header: http.Header{}}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	connection, err := transport.NewConnection(response)
	if err != nil {
		return err
	}
	defer connection.Close()
	for _, name := range []string{"stdin", "stdout", "error"} {
		headers := http.Header{"streamtype": {name}}
		stream, err := connection.CreateStream(headers)
		if err != nil {
			return err
		}
		sent := bytes.Repeat([]byte(name), 10_000)
		if _, err := stream.Write(sent); err != nil {
			return err
		}
		if err := stream.Close(); err != nil {
			return err
		}
		got, err := io.ReadAll(stream)
		if err != nil || !bytes.Equal(got, bytes.ToUpper(sent)) {
			return fmt.Errorf("stream %s: %d of %d bytes, %v", name, len(got), len(sent), err)
		}
	}
	return nil
}

func main() {
	var err error
	if os.Args[1] == "serve" {
		err = serve(os.Getenv("MESH_APP_ADDR"))
	} else {
		err = call(os.Args[2])
	}
	if err != nil {
		log.Fatal(err)
	}
}
