"""Reports: HTML pages, figures and model cards, made from stored results without torch, Ray or Optuna.

Python collects plain data; ``templates/`` and ``assets/`` turn it into pages and Markdown.
"""
