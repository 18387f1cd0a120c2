-- Trains an MLP of 784-256-10 on MNIST.
--
--   build/perigee scripts/train_mnist.lua --data DIR      (the four idx files, gzipped or not)

local root = (arg[0]:match("^(.*)/[^/]*$") or ".") .. "/.."
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path

local pg = require("perigee")
local data = require("perigee.data")
local nn = require("perigee.nn")
local system = require("perigee.system")
local train = require("perigee.train")

local F = nn.functional

local config = train.config {
    { "data", "data/mnist", "folder of the idx files" },
    { "epochs", 3, "passes over the training set" },
    { "batch_size", 64, "images a step" },
    { "learning_rate", 3e-3, "of Adam; it falls to 0 along a cosine" },
    { "hidden", 256, "width of the hidden layer" },
    { "seed", 42, "of weights and order" },
    train.DEVICE,
    train.DTYPE,
}
local settings = config:parse_or_exit(arg, "Trains an MLP on MNIST.")
local compute = train.compute(settings)

-- Images (N, 784) in [0, 1], labels (N), where the script computes.
local function load(name)
    local tensors = {}
    for i, part in ipairs { "images-idx3-ubyte", "labels-idx1-ubyte" } do
        local path = ("%s/%s-%s"):format(settings.data, name, part)
        if not system.exists(path) then
            path = path .. ".gz"
        end
        if not system.exists(path) then
            io.stderr:write(("train_mnist: there is no %s (nor without .gz); --data names the folder with MNIST's "
                .. "four files\n"):format(path))
            os.exit(1)
        end
        tensors[i] = data.read_idx(path)
    end
    local images, labels = tensors[1], tensors[2]
    return images:view(images:size(0), -1):to(compute.device, pg.get_default_dtype()) / 255,
        labels:to(compute.device, pg.int64)
end

pg.manual_seed(settings.seed)
local images, labels = load("train")
local test_images, test_labels = load("t10k")

local model = nn.Sequential(nn.Linear(images:size(1), settings.hidden), nn.ReLU(), nn.Linear(settings.hidden, 10))
print(model)
local optimizer = pg.optim.Adam(model:parameters(), { lr = settings.learning_rate })
local loader = data.DataLoader(data.TensorDataset(images, labels), {
    batch_size = settings.batch_size, shuffle = true, seed = settings.seed,
})

local scheduler = pg.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs * loader:len())

local function loss_of(x, y)
    return F.cross_entropy(model(x), y)
end

-- The epoch's losses, on the device, which need not be waited for at each step.
local sum = pg.zeros({}, { device = compute.device })

local function step(x, y)
    local loss = compute:forward(loss_of, x, y)
    optimizer:zero_grad()
    compute:backward(loss)
    compute:step(optimizer)
    scheduler:step()
    sum:add_(loss:detach())
end

-- The fraction of test images that are recognised.
local function accuracy()
    model:eval()
    local correct = pg.no_grad(pg.scope, function()
        return compute:forward(model, test_images):argmax(1):eq(test_labels):sum():item()
    end)
    model:train()
    return correct / test_labels:numel()
end

for epoch = 1, settings.epochs do
    local bar = train.progress(loader:len(), { desc = ("epoch %d"):format(epoch) })
    local n = 0
    sum:zero_()
    for x, y in loader:iter() do
        pg.scope(step, x, y)
        n = n + 1
        if n % 20 == 0 then
            bar:set_postfix(("loss=%.4f"):format(sum:item() / n))
        end
        bar:update(1)
    end
    bar:close()
    print(("epoch=%d loss=%.4f test_accuracy=%.2f%%"):format(epoch, sum:item() / n, 100 * accuracy()))
end
