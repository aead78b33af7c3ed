"""Which layer of a network feeds which, for a drawing."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp


@torch.no_grad()
def layer_graph(
    network: nn.Module, example: Float[Tensor, "..."]
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Follow an example through a network and note each step that it takes.

    torch.fx runs `forward` on a stand-in that writes down what is done to it, so
    branches and sums are found, too. The network is left as it was, in evaluation
    mode while it is followed.

    Returns:
        Two things: a label of two lines (what is done, and the shape of the result
        without the batch) by the name of the step, in the order of computing; and
        the arrows between steps, as pairs of names.

    Raises:
        torch.fx.proxy.TraceError: what `forward` does depends on the numbers in its
            input, as with `if x.sum() > 0`.
    """
    was_training = network.training
    traced = fx.symbolic_trace(network.eval())
    ShapeProp(traced).propagate(example)
    network.train(was_training)
    layers = dict(traced.named_modules())
    # What is no tensor, such as the tuple of outputs, is no step.
    steps = [
        node
        for node in traced.graph.nodes
        if node.op != "output" and hasattr(node.meta["tensor_meta"], "shape")
    ]
    labels = {node.name: f"{_label(node, layers)}\n{_shape(node)}" for node in steps}
    arrows = [
        (feeder.name, node.name) for node in steps for feeder in node.all_input_nodes
    ]
    return labels, arrows


def _label(node: fx.Node, layers: dict[str, nn.Module]) -> str:
    if node.op == "placeholder":
        return "input"
    if node.op == "call_module":
        layer = layers[str(node.target)]
        name = type(layer).__name__
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            height, width = layer.kernel_size
            name += f" {height} × {width}"
            name += f", stride {layer.stride[0]}" if layer.stride[0] > 1 else ""
        return name
    target: str | Callable = node.target
    return (target if isinstance(target, str) else target.__name__).strip("_")


def _shape(node: fx.Node) -> str:
    return " × ".join(str(size) for size in node.meta["tensor_meta"].shape[1:])
