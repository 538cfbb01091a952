"""A cascade with the plain OpenAI client: python openai_client.py policy.json "a question".  Tiers name models."""

import math
import sys

from openai import OpenAI

from metaverify import Accept, Call, load_policy


def call(client, model, question):
    """The answer, and what is read in it: `conf`, the mean token probability, as it must have been in the log."""
    messages = [{"role": "user", "content": question}]
    choice = client.chat.completions.create(model=model, messages=messages, logprobs=True).choices[0]
    logs = [token.logprob for token in (choice.logprobs and choice.logprobs.content) or []]
    return choice.message.content, {"conf": math.exp(sum(logs) / len(logs)) if logs else None}


def route(policy, client, question):
    """The answer that the policy accepts; None where it hands over."""
    if any(not t.answer or r.name != "conf" or r.votes or r.sample for t in policy.tiers for r in t.readings):
        raise ValueError("the policy reads more than the token probability: fit without that (--tiers, --readings)")
    answers, readings = {}, {}
    while isinstance(action := policy.decide(readings, key=question), Call):
        answers[action.tier], readings[action.tier] = call(client, action.tier, question)
    return answers[action.tier] if isinstance(action, Accept) else None


if __name__ == "__main__":
    print(route(load_policy(sys.argv[1]), OpenAI(), sys.argv[2]))
