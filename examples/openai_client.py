"""A cascade with the plain OpenAI client: python openai_client.py policy.json "a question".  Tiers are models' names.

The confidence is the answer's mean token probability, as it must have been in the log."""

import math
import sys

from openai import OpenAI

from metaverify import Accept, Call, load_policy


def call(client, model, question):
    """The answer, and the reading that comes with it."""
    messages = [{"role": "user", "content": question}]
    choice = client.chat.completions.create(model=model, messages=messages, logprobs=True).choices[0]
    logs = [token.logprob for token in (choice.logprobs and choice.logprobs.content) or []]
    return choice.message.content, {"conf": math.exp(sum(logs) / len(logs)) if logs else None}


def route(policy, client, question):
    """The answer that the policy accepts; None where it hands over."""
    answers, readings = {}, {}
    while isinstance(action := policy.decide(readings, key=question), Call):
        answers[action.tier], readings[action.tier] = call(client, action.tier, question)
    return answers[action.tier] if isinstance(action, Accept) else None


if __name__ == "__main__":
    print(route(load_policy(sys.argv[1]), OpenAI(), sys.argv[2]))
