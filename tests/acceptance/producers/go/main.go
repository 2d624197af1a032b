// Sends the records of the conformance cases with franz-go, which partitions by key as Kafka's own clients do.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"log"
	"os"
	"sort"

	"github.com/twmb/franz-go/pkg/kgo"
)

type record struct {
	Key         *string           `json:"key"`
	Headers     map[string]string `json:"headers"`
	Value       json.RawMessage   `json:"value"`
	ValueBase64 *string           `json:"value_base64"`
}

type cases struct {
	Cases []struct {
		Records []record `json:"records"`
	} `json:"cases"`
}

func main() {
	brokers, topic, path := os.Args[1], os.Args[2], os.Args[3]
	text, err := os.ReadFile(path)
	check(err)
	var all cases
	check(json.Unmarshal(text, &all))
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers), kgo.DefaultProduceTopic(topic))
	check(err)
	defer client.Close()
	for _, one := range all.Cases {
		for _, sent := range one.Records {
			check(client.ProduceSync(context.Background(), sent.kafka()).FirstErr())
		}
	}
}

func (sent record) kafka() *kgo.Record {
	made := &kgo.Record{Value: sent.Value}
	if sent.Key != nil {
		made.Key = []byte(*sent.Key)
	}
	if sent.ValueBase64 != nil {
		value, err := base64.StdEncoding.DecodeString(*sent.ValueBase64)
		check(err)
		made.Value = value
	}
	names := make([]string, 0, len(sent.Headers))
	for name := range sent.Headers {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		made.Headers = append(made.Headers, kgo.RecordHeader{Key: name, Value: []byte(sent.Headers[name])})
	}
	return made
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
