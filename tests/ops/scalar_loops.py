"""What the ops should give, one number at a time in float64: slow on purpose, nothing broadcast."""

import itertools
import math

import torch
from torch import Tensor


def iou(a: list[float], b: list[float], offset: int) -> float:
    """Intersection over union; 0 where that is no number."""
    if any(map(math.isnan, [*a, *b])):
        return 0.0
    across = min(a[2], b[2]) - max(a[0], b[0]) + offset
    down = min(a[3], b[3]) - max(a[1], b[1]) + offset
    if across <= 0 or down <= 0:
        return 0.0
    area_a = (a[2] - a[0] + offset) * (a[3] - a[1] + offset)
    area_b = (b[2] - b[0] + offset) * (b[3] - b[1] + offset)
    return across * down / (area_a + area_b - across * down)


def neighborhood_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    table: Tensor,
    window: int,
    dilation: tuple[int, int],
    scale: float,
) -> Tensor:
    """One query at a time; it can be differentiated, so that gradients have an oracle, too."""
    batch, height, width, heads, _ = query.shape
    rows, columns = (
        [nearest(i, side, window, step) for i in range(side)]
        for side, step in zip((height, width), dilation, strict=True)
    )
    found = []
    for b, y, x, n in itertools.product(*map(range, (batch, height, width, heads))):
        seen = list(itertools.product(rows[y], columns[x]))
        logits = [
            (query[b, y, x, n] * key[b, i, j, n]).sum() * scale
            + table[
                n,
                (i - y) // dilation[0] + window - 1,
                (j - x) // dilation[1] + window - 1,
            ]
            for i, j in seen
        ]
        largest = max(logit.item() for logit in logits)
        shares = [(logit - largest).exp() for logit in logits]
        mixed = sum(share * value[b, i, j, n] for share, (i, j) in zip(shares, seen, strict=True))
        found.append(mixed / sum(shares))
    return torch.stack(found).view(query.shape)


def nearest(place: int, side: int, count: int, step: int) -> list[int]:
    """The positions nearest to a place, of those some steps away from it."""
    places = [i for i in range(side) if (i - place) % step == 0]
    return sorted(sorted(places, key=lambda i: abs(i - place))[:count])


def nms(boxes: Tensor, scores: Tensor, threshold: float, offset: int) -> list[int]:
    rows = boxes.double().tolist()
    rank = [-math.inf if math.isnan(s) else s for s in scores.double().tolist()]
    kept: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: (-rank[i], i)):
        if all(iou(rows[i], rows[j], offset) <= threshold for j in kept):
            kept.append(i)
    return kept


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    threshold: float,
    sigma: float,
    min_score: float,
    method: str,
    offset: int,
) -> tuple[list[int], list[float]]:
    rows = boxes.double().tolist()
    left = {i: s for i, s in enumerate(scores.double().tolist()) if s >= min_score}
    taken, lowered = [], []
    while left:
        best = max(left, key=lambda i: (left[i], -i))
        taken.append(best)
        lowered.append(left.pop(best))
        for i in list(left):
            shared = iou(rows[best], rows[i], offset)
            if method == "gaussian":
                left[i] *= math.exp(-(shared**2) / sigma)
            elif shared >= threshold:
                left[i] *= 1 - shared if method == "linear" else 0
            if left[i] < min_score:
                del left[i]
    return taken, lowered


def hat(at: float, position: int, size: int) -> float:
    """How much of a position a sample reads: a triangle, flat beyond the first and last."""
    return max(0.0, 1 - abs(min(max(at, 0), size - 1) - position))


def roi_samples(roi: list[float], i, j, bins, scale, ratio, aligned):
    """The samples (y, x) of bin (i, j) of a box."""
    shift = 0.5 if aligned else 0.0
    x1, y1, x2, y2 = (c * scale - shift for c in roi[1:])
    smallest = 0.0 if aligned else 1.0
    down, across = (
        max(length, smallest) / n for length, n in zip((y2 - y1, x2 - x1), bins, strict=True)
    )
    rows, columns = ratio or math.ceil(down), ratio or math.ceil(across)
    return [
        (y1 + i * down + (s + 0.5) * down / rows, x1 + j * across + (t + 0.5) * across / columns)
        for s in range(rows)
        for t in range(columns)
    ]


def inside(y: float, x: float, height: int, width: int) -> bool:
    return -1 <= y <= height and -1 <= x <= width


def roi_align(features, rois, bins, scale=1.0, ratio=0, mode="avg", aligned=True) -> Tensor:
    _, channels, height, width = features.shape
    out = torch.zeros(len(rois), channels, *bins, dtype=torch.float64)
    for k, c, i, j in itertools.product(*map(range, out.shape)):
        roi = rois[k].double().tolist()
        plane = features[int(roi[0]), c].double().tolist()
        values = []
        for y, x in roi_samples(roi, i, j, bins, scale, ratio, aligned):
            value = 0.0
            if inside(y, x, height, width):
                for h, w in itertools.product(range(height), range(width)):
                    value += hat(y, h, height) * hat(x, w, width) * plane[h][w]
            values.append(value)
        if values:
            out[k, c, i, j] = max(values) if mode == "max" else sum(values) / len(values)
    return out


def roi_align_backward(grad, rois, shape, scale=1.0, ratio=0, aligned=True) -> Tensor:
    """Of mode "avg"."""
    out = torch.zeros(shape, dtype=torch.float64)
    height, width = shape[2:]
    for k, c, i, j in itertools.product(*map(range, grad.shape)):
        roi = rois[k].double().tolist()
        samples = roi_samples(roi, i, j, grad.shape[2:], scale, ratio, aligned)
        for y, x in samples:
            if not inside(y, x, height, width):
                continue
            for h, w in itertools.product(range(height), range(width)):
                share = hat(y, h, height) * hat(x, w, width) / len(samples)
                out[int(roi[0]), c, h, w] += share * grad[k, c, i, j].item()
    return out


def turned(place: tuple[int, int], size: tuple[int, int], shift: int) -> tuple[int, int]:
    return (place[0] - shift) % size[0], (place[1] - shift) % size[1]


def share_a_window(one, other, size, window: int, shift: int) -> bool:
    """Same window of the turned map, and not joined only by going around the border."""
    for p, o, t, u in zip(
        one, other, turned(one, size, shift), turned(other, size, shift), strict=True
    ):
        if t // window != u // window or t - u != p - o:
            return False
    return True


def window_attention(qkv, bias, pad, scale, window, shift, cosine=False) -> Tensor:
    """On the original map: who sees whom follows from places on the turned map, not from a cut."""
    batch, height, width, _, heads, head_dim = qkv.shape
    size = tuple(math.ceil(n / window) * window for n in (height, width))
    rows, outside, offsets, factors = (x.tolist() for x in (qkv, pad, bias, scale))

    def token(b: int, y: int, x: int) -> list:
        return rows[b][y][x] if y < height and x < width else outside

    def position(place: tuple[int, int]) -> int:
        row, column = turned(place, size, shift)
        return row % window * window + column % window

    def product(q: list[float], k: list[float]) -> float:
        dot = sum(a * b for a, b in zip(q, k, strict=True))
        return dot / (math.hypot(*q) * math.hypot(*k)) if cosine else dot

    out = torch.zeros(batch, height, width, heads, head_dim, dtype=torch.float64)
    places = list(itertools.product(*map(range, size)))
    for at in itertools.product(range(height), range(width)):
        seen = [place for place in places if share_a_window(at, place, size, window, shift)]
        for b, n in itertools.product(range(batch), range(heads)):
            logits = [
                factors[n] * product(token(b, *at)[0][n], token(b, *place)[1][n])
                + offsets[n][position(at)][position(place)]
                for place in seen
            ]
            weights = [math.exp(logit) for logit in logits]
            values = [token(b, *place)[2][n] for place in seen]
            for c in range(head_dim):
                mixed = sum(w * v[c] for w, v in zip(weights, values, strict=True))
                out[b, at[0], at[1], n, c] = mixed / sum(weights)
    return out.flatten(3)


def tent(at: float, position: int) -> tuple[float, float]:
    """What a position weighs in a sample at `at`, and how fast that changes, to the right."""
    low = math.floor(at)
    slope = {low: -1.0, low + 1: 1.0}.get(position, 0.0)
    return max(0.0, 1 - abs(at - position)), slope


def near(at: float, size: int) -> list[int]:
    """Positions of a map that may weigh something."""
    return [position for position in range(size) if abs(position - at) <= 1]


def ms_deform_attn(value, sizes, locations, weights, grad=None):
    """The output, or with its gradient those of value, locations and weights."""
    batch, queries, heads = weights.shape[:3]
    channels = value.shape[3]
    out = torch.zeros(batch, queries, heads, channels, dtype=torch.float64)
    by_value, by_locations, by_weights = (
        torch.zeros(x.shape, dtype=torch.float64) for x in (value, locations, weights)
    )
    starts = [sum(h * w for h, w in sizes[:n]) for n in range(len(sizes))]
    for place in itertools.product(*map(range, weights.shape)):
        b, q, n, level, _ = place
        height, width = sizes[level]
        x, y = (locations[place].double() * torch.tensor([width, height])).tolist()
        weight = weights[place].item()
        for h, w in itertools.product(near(y - 0.5, height), near(x - 0.5, width)):
            (down, by_y), (right, by_x) = tent(y - 0.5, h), tent(x - 0.5, w)
            key = starts[level] + h * width + w
            row = value[b, key, n].double()
            out[b, q, n] += weight * down * right * row
            if grad is None:
                continue
            given = grad[b, q, n * channels : (n + 1) * channels].double()
            product = float(given @ row)
            by_value[b, key, n] += weight * down * right * given
            by_weights[place] += down * right * product
            by_locations[(*place, 0)] += weight * down * by_x * width * product
            by_locations[(*place, 1)] += weight * by_y * right * height * product
    return out.flatten(2) if grad is None else (by_value, by_locations, by_weights)


def deform_conv2d(input, offset, weight, bias, stride, padding, dilation, mask) -> Tensor:
    batch, channels, height, width = input.shape
    outputs, share, *kernel = weight.shape
    groups, parts = channels // share, offset.shape[1] // (2 * kernel[0] * kernel[1])
    out = torch.zeros(batch, outputs, *offset.shape[2:], dtype=torch.float64)
    plane, factor = input.tolist(), weight.tolist()
    for b, o, i, j in itertools.product(*map(range, out.shape)):
        total = bias[o].item() if bias is not None else 0.0
        for c, r, s in itertools.product(range(share), *map(range, kernel)):
            channel = o // (outputs // groups) * share + c
            number = (channel // (channels // parts) * kernel[0] + r) * kernel[1] + s
            y = i * stride[0] - padding[0] + r * dilation[0] + offset[b, 2 * number, i, j].item()
            x = (
                j * stride[1]
                - padding[1]
                + s * dilation[1]
                + offset[b, 2 * number + 1, i, j].item()
            )
            sample = sum(
                tent(y, h)[0] * tent(x, w)[0] * plane[b][channel][h][w]
                for h, w in itertools.product(near(y, height), near(x, width))
            )
            total += (
                factor[o][c][r][s] * sample * (1 if mask is None else mask[b, number, i, j].item())
            )
        out[b, o, i, j] = total
    return out
