--- What a training script needs around the model: settings, progress, a run's folder, event files, checkpoints.

local checkpoint = require("perigee.train.checkpoint")
local compute = require("perigee.train.compute")
local run = require("perigee.train.run")
local tensorboard = require("perigee.train.tensorboard")

return {
    config = require("perigee.train.config"),
    compute = compute.compute,
    DEVICE = compute.DEVICE,
    DTYPE = compute.DTYPE,
    progress = require("perigee.train.progress"),
    Run = run.Run,
    read_metrics = run.read_metrics,
    SummaryWriter = tensorboard.SummaryWriter,
    save_checkpoint = checkpoint.save,
    load_checkpoint = checkpoint.load,
}
