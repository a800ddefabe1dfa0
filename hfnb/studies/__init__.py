"""The experiments that notebooks and benchmarks share; no other part of the package imports them.

===================  ===================================================================================
tasks                networks with their data, and runs of optimizers on them
larger_batches       what each method spends until a target, at each batch size
tuning               search for the best options on geometric grids
communication        a race in reductions to a loss, of methods that are all tuned by one rule
stored_runs          a file of runs, with which an interrupted study goes on
negative_curvature   all combinations of solver, matrix, rule and step, and what each of them costs
method_comparison    whole methods on the same problems, all tuned by one rule
fidelity             what the paper's abstracts fix, what we chose, and an alternative to each choice
precision_problems   differential equations, regression and recurrent networks, with known errors
exercises            answers of "Your turn" cells beside the right ones
decisions            when to use which method: a table of stored measurements
scaling_model        timed runs on engines, and a model of the seconds on any number of them
synthetic_speech     a corpus of TIMIT's form, spoken by eSpeak NG
features             log-mel energies, normalized, with their neighbours
speech_dataset       frames of speech of the first corpus found: TIMIT, its free sample, synthetic speech
speech_recognition   the acoustic model: training, recognition by Viterbi search, errors
===================  ===================================================================================
"""
