"""LangChain's chat models as a cascade in LangGraph: cascade(policy, {"small": model}, {"conf": verify}).invoke(…)."""

from langgraph.graph import START, StateGraph

from metaverify import Accept, Call, Verify


def cascade(policy, models, ask):  # ask["conf"](question, answer) is the reading of that name
    """A graph from {"question": …} to {"answer": …}, which is None, or not there, where the policy hands over."""
    if odd := [r for t in policy.tiers for r in t.readings if not t.answer or r.votes or r.sample or r.name not in ask]:
        raise ValueError(f"nothing here reads {odd[0].name}: give what does, or fit without it (--tiers, --readings)")

    def follow(state):
        action = policy.decide(state.get("readings", {}), key=state["question"])
        return action.tier if isinstance(action, Call) else "__end__"

    graph = StateGraph(dict).add_conditional_edges(START, follow, [*models, "__end__"])
    for tier in models:

        def node(state, tier=tier):
            question, readings = state["question"], {**state.get("readings", {}), tier: {}}
            answers = {**state.get("answers", {}), tier: models[tier].invoke(question).text}
            while isinstance(action := policy.decide(readings, key=question), Verify):
                told = ask[action.reading](question, answers[action.tier])
                readings[action.tier] = {**readings[action.tier], action.reading: told}
            answer = answers[action.tier] if isinstance(action, Accept) else None
            return {**state, "answers": answers, "readings": readings, "answer": answer}

        graph.add_node(tier, node).add_conditional_edges(tier, follow, [*models, "__end__"])
    return graph.compile()
