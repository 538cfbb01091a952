"""LangChain's chat models as a cascade in LangGraph: cascade(policy, {"small": model}, confidence).invoke(…)."""

from langgraph.graph import START, StateGraph

from metaverify import Call


def cascade(policy, models, confidence):
    """A graph from {"question": …} on; confidence(question, answer) is the first reading of every tier.

    In the end state["answers"][policy.decide(state["readings"], key=state["question"]).tier] is the answer."""

    def follow(state):
        action = policy.decide(state.get("readings", {}), key=state["question"])
        return action.tier if isinstance(action, Call) else "__end__"

    def node(tier):
        def ask(state):
            answer = models[tier].invoke(state["question"]).text
            read = {**state.get("readings", {}), tier: confidence(state["question"], answer)}
            return {**state, "readings": read, "answers": {**state.get("answers", {}), tier: answer}}

        return ask

    graph = StateGraph(dict)
    for tier in models:
        graph.add_node(tier, node(tier))
    for start in (START, *models):
        graph.add_conditional_edges(start, follow, [*models, "__end__"])
    return graph.compile()
