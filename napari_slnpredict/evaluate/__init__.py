"""Judging: encoders against each other on tiles that have labels, places or stains.

::

    arms = [load_arm(name, settings) for name in ("hne-small", "colour", "histogram", "random:resnet18@pca128")]
    comparison = events.run(judge(arms, [JudgedSet("pcam", tiles)], baseline="colour"))
    write_comparison(comparison, Path("out"))
"""
