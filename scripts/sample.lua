-- Writes text with a model that scripts/train_gpt.lua trained, character by character.
--
--   build/perigee scripts/sample.lua --start="ROMEO:" --temperature=0.8 --top_k=20

local root = (arg[0]:match("^(.*)/[^/]*$") or ".") .. "/.."
package.path = root .. "/lua/?.lua;" .. root .. "/lua/?/init.lua;" .. package.path

local pg = require("perigee")
local data = require("perigee.data")
local gpt = require("perigee.models.gpt")
local system = require("perigee.system")
local train = require("perigee.train")

local config = train.config {
    { "out_dir", "out-gpt", "the run's folder" },
    { "checkpoint", "", "a checkpoint's path; without it, the best one in out_dir" },
    { "start", "\n", "the prompt; FILE:path reads it from a file" },
    { "num_samples", 1, "how many texts" },
    { "max_new_tokens", 500, "characters a text" },
    { "temperature", 0.8, "below 1: more sure; 0: always the likeliest" },
    { "top_k", 0, "draw from the k likeliest; 0: from all" },
    { "top_p", 1, "draw from the likeliest that make up this probability", "float" },
    { "seed", 1337, "of the draws" },
    train.DEVICE,
    train.DTYPE,
}
local settings = config:parse_or_exit(arg, "Writes text with a trained GPT.")

local compute = train.compute(settings)

local function stop(...)
    io.stderr:write("sample: ", string.format(...), "\n")
    os.exit(1)
end

local path = settings.checkpoint
if path == "" then
    path = settings.out_dir .. "/best.safetensors"
    if not system.exists(path) then
        path = settings.out_dir .. "/last.safetensors"
    end
end
if not system.exists(path) then
    stop("there is no checkpoint %s; scripts/train_gpt.lua makes one", path)
end
local checkpoint = train.load_checkpoint(path)
local vocabulary, saved = data.Characters(checkpoint.vocabulary), checkpoint.settings

local model = gpt.GPT {
    vocab_size = vocabulary:len(), block_size = saved.block_size, n_layer = saved.n_layer, n_head = saved.n_head,
    n_embd = saved.n_embd, dropout = saved.dropout, bias = saved.bias,
}
model:load_state_dict(checkpoint.model)
model:eval()

local start = settings.start
if start:sub(1, 5) == "FILE:" then
    local text, why = system.read_file(start:sub(6))
    if not text then
        stop("--start: %s", why)
    end
    start = text
end
if start == "" then
    stop("--start: expected at least one character")
end
local ok, prompt = pcall(vocabulary.encode, vocabulary, start)
if not ok then
    stop("--start: %s", prompt)
end

pg.manual_seed(settings.seed)
for i = 1, settings.num_samples do
    io.stdout:write(start)
    compute:forward(model.generate, model, prompt:unsqueeze(0):to(compute.device), settings.max_new_tokens, {
        temperature = settings.temperature, top_k = settings.top_k, top_p = settings.top_p,
        on_token = function(token)
            io.stdout:write(vocabulary:decode(token))
            io.stdout:flush()
        end,
    })
    print(i < settings.num_samples and "\n---------------" or "")
end
