"""The lines that make a `.pt2` archive of any model, for messages and screens; needs no torch."""

HOW_TO_EXPORT = """\
batch = torch.export.Dim("batch")
program = torch.export.export(model.eval(), (x,), dynamic_shapes=({0: batch},))
torch.export.save(program, "model.pt2")"""
