// Every loop of this instruction set, in the order of PackedKernels.

static const PackedKernels kKernels = {
    .name = kName,
    .step = 32,
    .quantize = quantize_tokens,
    .project = project_token,
    .widen_ranks = widen_ranks,
    .project_tokens = project_tokens,
    .finish_ranks = finish_ranks,
    .panels = run_panels,
    .dot_chain = dot_chain,
    .read_through = read_through,
};
