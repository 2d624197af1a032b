// Sends the records of the conformance cases with kafkajs and its default partitioner.
"use strict";

const { readFileSync } = require("node:fs");
const { Kafka, Partitioners, logLevel } = require("kafkajs");

function message(sent) {
  const made = { key: sent.key ?? null, headers: sent.headers ?? {}, value: null };
  if (sent.value_base64 !== undefined) {
    made.value = Buffer.from(sent.value_base64, "base64");
  } else if (sent.value !== undefined) {
    made.value = JSON.stringify(sent.value);
  }
  return made;
}

async function main([brokers, topic, path]) {
  const kafka = new Kafka({ brokers: brokers.split(","), logLevel: logLevel.ERROR });
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
  await producer.connect();
  for (const one of JSON.parse(readFileSync(path, "utf8")).cases) {
    for (const sent of one.records) {
      await producer.send({ topic, messages: [message(sent)] });
    }
  }
  await producer.disconnect();
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
