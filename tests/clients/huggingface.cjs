// Asks a server as a user of @huggingface/inference does: node huggingface.cjs URL [KEY]. Prints what the client gives, as JSON.
const { InferenceClient } = require("@huggingface/inference");

const [endpointUrl, key] = process.argv.slice(2);

async function main() {
  const client = new InferenceClient(key);
  const inputs = "You won! The secret trick";
  const plain = await client.textClassification({ endpointUrl, inputs });
  const first = await client.textClassification({ endpointUrl, inputs, parameters: { top_k: 1 } });
  console.log(JSON.stringify({ plain, first }));
}

main().catch((error) => {
  console.error(String(error));
  process.exit(1);
});
