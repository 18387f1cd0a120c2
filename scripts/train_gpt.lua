-- Trains a GPT on a text file, character by character. Every setting below is given as --key=value.
--
--   build/perigee scripts/train_gpt.lua
--   build/perigee scripts/train_gpt.lua --data=input.txt --max_iters=5000 --out_dir=out-mine
--   build/perigee scripts/train_gpt.lua --init_from=resume --out_dir=out-mine

local root = (arg[0]:match("^(.*)/[^/]*$") or ".") .. "/.."
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path

local pg = require("perigee")
local data = require("perigee.data")
local gpt = require("perigee.models.gpt")
local nn = require("perigee.nn")
local plot = require("perigee.plot")
local system = require("perigee.system")
local tensorboard = require("perigee.train.tensorboard")
local train = require("perigee.train")

local config = train.config {
    { "data", "", "text file; without it, this project's own source and documentation" },
    { "out_dir", "out-gpt", "folder for checkpoints, metrics and plots" },
    { "init_from", "scratch", "start anew, or go on from out_dir", { "scratch", "resume" } },
    { "seed", 1337, "of weights, batches and dropout" },
    train.DEVICE,
    train.DTYPE,
    -- the model
    { "n_layer", 4, "transformer blocks" },
    { "n_head", 4, "attention heads" },
    { "n_embd", 128, "width" },
    { "block_size", 64, "tokens of context" },
    { "dropout", 0, "probability of dropping", "float" },
    { "bias", false, "biases in Linear and LayerNorm" },
    -- optimisation
    { "batch_size", 12, "sequences a step" },
    { "gradient_accumulation_steps", 1, "batches whose gradients are added up in a step" },
    { "max_iters", 2000, "optimizer steps" },
    { "learning_rate", 1e-3, "highest rate" },
    { "min_lr", 1e-4, "lowest rate" },
    { "warmup_iters", 100, "steps of linear warm-up" },
    { "lr_decay_iters", 2000, "step at which min_lr is reached" },
    { "decay_lr", true, "warm-up and cosine; false keeps learning_rate" },
    { "beta1", 0.9, "AdamW" },
    { "beta2", 0.99, "AdamW" },
    { "weight_decay", 0.1, "AdamW, on matrices only" },
    { "grad_clip", 1, "largest gradient norm; 0 does not clip", "float" },
    -- reporting
    { "eval_interval", 250, "steps between evaluations; a checkpoint follows each" },
    { "eval_iters", 40, "batches an evaluation averages over" },
    { "log_interval", 10, "steps between lines of metrics" },
    { "always_save_checkpoint", true, "keep the last state too, for --init_from=resume; false: only the best" },
    { "sample_tokens", 400, "characters to write at the end" },
}
local settings, given = config:parse_or_exit(arg, "Trains a GPT on a text file, character by character.")

local compute = train.compute(settings)

local function stop(...)
    io.stderr:write("train_gpt: ", string.format(...), "\n")
    os.exit(1)
end

-- ---- resuming: the checkpoint's settings, but for those given now ----

local LAST, BEST = settings.out_dir .. "/last.safetensors", settings.out_dir .. "/best.safetensors"
local MODEL = { "n_layer", "n_head", "n_embd", "block_size", "dropout", "bias" }

local checkpoint
if settings.init_from == "resume" then
    local path = system.exists(LAST) and LAST or BEST
    if not system.exists(path) then
        stop("there is nothing to resume in %s (no %s)", settings.out_dir, LAST)
    end
    checkpoint = train.load_checkpoint(path)
    for _, name in ipairs(MODEL) do
        if given[name] and settings[name] ~= checkpoint.settings[name] then
            stop("--%s=%s: the checkpoint's model has %s", name, tostring(settings[name]),
                tostring(checkpoint.settings[name]))
        end
    end
    for name, value in pairs(checkpoint.settings) do
        if not given[name] and settings[name] ~= nil then
            settings[name] = value
        end
    end
    settings.init_from = "resume"
end

-- ---- data ----

-- Every source and document of the project, in one fixed order.
local function own_text()
    local find = "cd " .. system.shell_quote(root) .. " && find README.md engine kernels lua scripts spec -type f "
        .. "\\( -name '*.lua' -o -name '*.c' -o -name '*.h' -o -name '*.md' -o -name '*.py' \\) 2>/dev/null "
        .. "| LC_ALL=C sort"
    local pipe = io.popen(find, "r")
    local parts = {}
    for name in pipe:lines() do
        parts[#parts + 1] = system.read_file(root .. "/" .. name)
    end
    pipe:close()
    return table.concat(parts, "\n")
end

local text, why
if settings.data == "" then
    text = own_text()
else
    text, why = system.read_file(settings.data)
    if not text then
        stop("--data: %s", why)
    end
end
if #text < 10 * (settings.block_size + 1) then
    stop("the text has %d bytes; block_size %d needs at least %d", #text, settings.block_size,
        10 * (settings.block_size + 1))
end

local checksum = tensorboard.crc32c(text)
if checkpoint and (checkpoint.text_bytes ~= #text or checkpoint.text_checksum ~= checksum) then
    stop("the text differs from the one that the checkpoint was trained on (%d bytes, now %d): a resumed run needs the "
        .. "same", checkpoint.text_bytes, #text)
end

local vocabulary
if checkpoint then
    vocabulary = data.Characters(checkpoint.vocabulary)
else
    vocabulary = data.Characters(text)
end
local ids = vocabulary:encode(text)
local n_train = math.floor(ids:numel() * 0.9)
local parts = {
    train = ids:narrow(0, 0, n_train):to(compute.device),
    val = ids:narrow(0, n_train, ids:numel() - n_train):to(compute.device),
}
for name, part in pairs(parts) do
    if part:numel() <= settings.block_size then
        stop("the %s part has %d characters, block_size %d needs more", name, part:numel(), settings.block_size)
    end
end

local offsets = pg.arange(settings.block_size, { dtype = pg.int64 })

-- Two (batch_size, block_size) tensors: sequences at random places, and the same one character later.
local function get_batch(name)
    local part, T = parts[name], settings.block_size
    local starts = pg.randint(0, part:numel() - T, { settings.batch_size, 1 })
    local places = (starts + offsets):flatten()
    local x = part:index_select(0, places):view(settings.batch_size, T)
    local y = part:index_select(0, places + 1):view(settings.batch_size, T)
    return x, y
end

-- ---- model, optimizer, schedule ----

pg.manual_seed(settings.seed)
local model = gpt.GPT {
    vocab_size = vocabulary:len(), block_size = settings.block_size, n_layer = settings.n_layer,
    n_head = settings.n_head, n_embd = settings.n_embd, dropout = settings.dropout, bias = settings.bias,
}
local parameters = model:parameters()
local optimizer = model:configure_optimizer {
    lr = settings.learning_rate, betas = { settings.beta1, settings.beta2 }, weight_decay = settings.weight_decay,
}
local scheduler
if settings.decay_lr then
    scheduler = pg.optim.lr_scheduler.WarmupCosineLR(optimizer, settings.warmup_iters,
        math.max(settings.lr_decay_iters, settings.warmup_iters), settings.min_lr)
end

local iter, best = 0, math.huge
if checkpoint then
    model:load_state_dict(checkpoint.model)
    optimizer:load_state_dict(checkpoint.optimizer)
    if scheduler and checkpoint.scheduler then
        scheduler:load_state_dict(checkpoint.scheduler)
    end
    pg.set_rng_state(checkpoint.rng_state, compute.device)
    iter, best = checkpoint.iter, checkpoint.best
end

local run = train.Run(settings.out_dir, { resume_step = checkpoint and iter or nil })
run:config(settings)

local function save(path)
    train.save_checkpoint(path, {
        model = model:state_dict(), optimizer = optimizer:state_dict(),
        scheduler = scheduler and scheduler:state_dict(),
        rng_state = pg.get_rng_state(compute.device), vocabulary = vocabulary.characters, settings = settings,
        iter = iter, best = best, text_bytes = #text, text_checksum = checksum,
    })
end

-- ---- one step, one evaluation ----

-- Of the last step, on the device: reading it waits for the device, which otherwise has the next steps queued.
local step_loss = pg.zeros({}, { device = compute.device })
local read_interval = compute.device == "cpu" and 1 or settings.log_interval

local function micro_step()
    local x, y = get_batch("train")
    local loss = compute:forward(model.loss, model, x, y)
    step_loss:add_(loss:detach(), { alpha = 1 / settings.gradient_accumulation_steps })
    if settings.gradient_accumulation_steps > 1 then
        loss = loss / settings.gradient_accumulation_steps
    end
    compute:backward(loss)
end

local function step()
    step_loss:zero_()
    for _ = 1, settings.gradient_accumulation_steps do
        pg.scope(micro_step)
    end
    if settings.grad_clip > 0 then
        compute:unscale(optimizer)
        nn.utils.clip_grad_norm_(parameters, settings.grad_clip)
    end
    compute:step(optimizer)
    optimizer:zero_grad()
end

local eval_part
local function eval_batch()
    return compute:forward(model.loss, model, get_batch(eval_part)):item()
end

-- Mean losses over eval_iters random batches of each part.
local function evaluate()
    local losses = {}
    model:eval()
    for _, name in ipairs { "train", "val" } do
        eval_part = name
        local sum = 0
        for _ = 1, settings.eval_iters do
            sum = sum + pg.no_grad(pg.scope, eval_batch)
        end
        losses[name] = sum / settings.eval_iters
    end
    model:train()
    return losses
end

-- ---- the loop ----

print(("%d characters, vocabulary of %d; model of %.2fM parameters"):format(ids:numel(),
    vocabulary:len(), model:num_parameters() / 1e6))

if checkpoint then
    print(("resumed at step %d, best validation loss %.4f"):format(iter, best))
end

local bar = train.progress(settings.max_iters, { desc = "train", unit = "it", initial = iter })
local last_loss, val_loss

local function checkpointed_evaluation()
    local losses = evaluate()
    val_loss = losses.val
    run:log(iter, { ["loss/eval_train"] = losses.train, ["loss/val"] = losses.val })
    local is_best = losses.val < best
    best = math.min(best, losses.val)
    bar:write(("step %d: train loss %.4f, val loss %.4f%s"):format(iter, losses.train, losses.val,
        is_best and iter > 0 and ", best" or ""))
    if iter > 0 then
        -- The best one first: killed in between, a resumed run comes by here again.
        if is_best then
            save(BEST)
        end
        if settings.always_save_checkpoint then
            save(LAST)
        end
    end
end

local started, from = system.monotonic(), iter
if not checkpoint then
    checkpointed_evaluation()
end
while iter < settings.max_iters do
    local lr = optimizer.param_groups[1].lr
    pg.scope(step)
    if scheduler then
        scheduler:step()
    end
    iter = iter + 1
    if iter % read_interval == 0 or iter == settings.max_iters then
        last_loss = step_loss:item()
        if last_loss ~= last_loss then
            bar:close()
            stop("the loss is NaN at step %d; a smaller --learning_rate or --grad_clip may help", iter)
        end
    end
    if iter % settings.log_interval == 0 then
        run:log(iter, { ["loss/train"] = last_loss, lr = lr })
    end
    if last_loss then
        bar:set_postfix(val_loss and ("loss=%.3f, val=%.3f"):format(last_loss, val_loss)
            or ("loss=%.3f"):format(last_loss))
    end
    bar:update(1)
    if iter % settings.eval_interval == 0 or iter == settings.max_iters then
        checkpointed_evaluation()
    end
end
bar:close()
local seconds = system.monotonic() - started
if iter > from then
    print(("%d steps in %.1f s, %.1f ms a step; best validation loss %.4f"):format(iter - from, seconds,
        1000 * seconds / (iter - from), best))
end

-- ---- what came of it ----

if plot.available() then
    local path = plot.loss_curve(settings.out_dir, { path = run:path("loss.png"), title = "loss" })
    if run.events then
        run.events:add_image("loss curve", system.read_file(path), iter)
    end
    print("\n" .. plot.loss_curve(settings.out_dir, { keys = { "loss/train", "loss/val" }, title = "loss" }))
    print("loss curve: " .. path)
else
    print("no loss curve: gnuplot is not installed (Debian: apt install gnuplot-nox)")
end
run:close()

if settings.sample_tokens > 0 then
    print(("\nA sample after %d steps:\n"):format(iter))
    local start = vocabulary.ids["\n"] and "\n" or vocabulary.characters[1]
    model:generate(vocabulary:encode(start):unsqueeze(0):to(compute.device), settings.sample_tokens, {
        temperature = 0.8,
        on_token = function(token)
            io.stdout:write(vocabulary:decode(token))
            io.stdout:flush()
        end,
    })
    print()
end
print(("\nmore samples: build/perigee scripts/sample.lua --out_dir=%s"):format(settings.out_dir))
