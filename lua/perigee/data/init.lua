--- data: datasets, loaders, file formats. PyTorch's torch.utils.data.

local dataset = require("perigee.data.dataset")
local dataloader = require("perigee.data.dataloader")

return {
    TensorDataset = dataset.TensorDataset,
    Subset = dataset.Subset,
    random_split = dataset.random_split,
    DataLoader = dataloader.DataLoader,
    default_collate = dataloader.default_collate,
    Characters = require("perigee.data.text").Characters,
    read_idx = require("perigee.data.idx").read_idx,
}
