// A model that calls a function of yours. Its chat template has to know of tools.
//   FAR_GATEWAY=http://127.0.0.1:8000 FAR_API_KEY=sk-far-… FAR_MODEL=… node examples/tools.ts
import { type ChatMessage, FarLabsClient, type Tool } from "farlabs";

const { FAR_GATEWAY = "http://127.0.0.1:8000", FAR_API_KEY, FAR_MODEL = "far-demo" } = process.env;
const client = new FarLabsClient({ url: FAR_GATEWAY, apiKey: FAR_API_KEY });

const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools: Tool[] = [{ type: "function", function: { name: "weather", parameters } }];
const weather = ({ city }: { city: string }) => `12 °C and rain in ${city}`;

const messages: ChatMessage[] = [{ role: "user", content: "What is the weather in Bonn?" }];
const asked = await client.chat({ model: FAR_MODEL, messages, tools }).result();

if (asked.tool_calls) {
  messages.push({ role: "assistant", content: asked.text, tool_calls: asked.tool_calls });
  for (const call of asked.tool_calls) {
    console.log(`calls ${call.function.name}(${call.function.arguments})`);
    const content = weather(JSON.parse(call.function.arguments) as { city: string });
    messages.push({ role: "tool", tool_call_id: call.id, content });
  }
  for await (const text of client.chat({ model: FAR_MODEL, messages, tools, tool_choice: "none" })) {
    process.stdout.write(text);
  }
} else {
  process.stdout.write(asked.text);
}
console.log();
