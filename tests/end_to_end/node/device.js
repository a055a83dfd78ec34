// One device on the official Node SDKs: provision, connect, send, close. Driven by test_node_sdk.py.
//
// Argument: a JSON object {transport, provisioningHost, idScope, registrationId, cert, key, messages}.
// Prints one JSON line for each step; exits 1 with {"error": …} when the SDK reports a failure.
'use strict';

const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const provisioning = require('azure-iot-provisioning-device-mqtt');
const { X509Security } = require('azure-iot-security-x509');
const { Client, Message } = require('azure-iot-device');
const hub = require('azure-iot-device-mqtt');

const settings = JSON.parse(process.argv[2]);
const overWebSockets = settings.transport === 'mqtt-ws';

function say(value) {
  process.stdout.write(JSON.stringify(value) + '\n');
}

async function register() {
  const identity = { cert: settings.cert, key: settings.key };
  const security = new X509Security(settings.registrationId, identity);
  const transport = overWebSockets ? new provisioning.MqttWs() : new provisioning.Mqtt();
  const client = ProvisioningDeviceClient.create(
    settings.provisioningHost, settings.idScope, transport, security);
  return client.register();
}

async function send(result) {
  const connection = `HostName=${result.assignedHub};DeviceId=${result.deviceId};x509=true`;
  const client = Client.fromConnectionString(connection, overWebSockets ? hub.MqttWs : hub.Mqtt);
  await client.setOptions({ cert: settings.cert, key: settings.key });
  await client.open();
  for (let number = 0; number < settings.messages; number += 1) {
    const message = new Message(JSON.stringify({ messageId: number }));
    message.properties.add('number', String(number));
    await client.sendEvent(message);
    say({ sent: number });
  }
  await client.close();
}

async function main() {
  const result = await register();
  say({ assigned: { hub: result.assignedHub, device: result.deviceId } });
  await send(result);
  say({ done: true });
}

main().catch((error) => {
  say({ error: { name: error.name, message: error.message } });
  process.exit(1);
});
