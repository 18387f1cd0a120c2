--- Modules: classes whose fields register parameters, buffers and submodules.
--
--   local Block = nn.class("Block")          -- or nn.class("Block", Parent)
--   function Block:__init(width)
--       self.fc = nn.Linear(width, width)
--   end
--   function Block:forward(x)
--       return x + self.fc(x):relu()
--   end
--   local block = Block(64)
--   local y = block(x)                       -- hooks and forward
--
-- An instance keeps everything in four tables of its own, _parameters, _buffers, _modules (in the order of
-- assignment) and _fields (the rest), so every assignment is seen; reading looks into the fields, the class and its
-- parents, then those.

local check = require("perigee.check")
local ordered_dict = require("perigee.nn.ordered_dict")
local parameter = require("perigee.nn.parameter")
local pg = require("perigee")

local is_tensor, is_parameter = parameter.is_tensor, parameter.is_parameter
local fail, describe = check.fail, check.describe

local M = {}

-- ---- an ordered table of names ----

-- names: the keys in order; values[name] is nil where a slot is empty.
local function slots()
    return { names = {}, values = {}, known = {} }
end

local function slot_set(s, name, value)
    if not s.known[name] then
        s.known[name] = true
        s.names[#s.names + 1] = name
    end
    s.values[name] = value
end

local function slot_remove(s, name)
    if s.known[name] then
        s.known[name], s.values[name] = nil, nil
        for i, candidate in ipairs(s.names) do
            if candidate == name then
                table.remove(s.names, i)
                break
            end
        end
    end
end

-- ---- classes ----

---@class Module
---@field training boolean
local Module = { _name = "Module" }
M.Module = Module

local function is_module(value)
    return type(value) == "table" and rawget(value, "_modules") ~= nil and rawget(value, "_class") ~= nil
end
M.is_module = is_module

local function index(self, key)
    local value = rawget(self, "_fields")[key]
    if value ~= nil then
        return value
    end
    value = rawget(self, "_class")[key]
    if value ~= nil then
        return value
    end
    value = rawget(self, "_parameters").values[key]
    if value ~= nil then
        return value
    end
    value = rawget(self, "_modules").values[key]
    if value ~= nil then
        return value
    end
    value = rawget(self, "_buffers").values[key]
    if value ~= nil then
        return value
    end
    if type(key) == "number" then
        local at = rawget(self, "_class")._at
        return at and at(self, key)
    end
end

local function check_name(self, kind, name)
    if type(name) ~= "string" then
        fail("%s name should be a string, got %s", kind, describe(name))
    elseif name:find(".", 1, true) then
        fail("%s name can't contain \".\", got %q", kind, name)
    elseif name == "" then
        fail("%s name can't be the empty string", kind)
    elseif self[name] ~= nil and not rawget(self, "_" .. kind .. "s").known[name] then
        fail("%s already has a field %q", self:_get_name(), name)
    end
end

local function newindex(self, key, value)
    local parameters, buffers = rawget(self, "_parameters"), rawget(self, "_buffers")
    local modules, fields = rawget(self, "_modules"), rawget(self, "_fields")
    if type(key) == "number" then
        local put = rawget(self, "_class")._put
        if put then
            return put(self, key, value)
        end
    end
    if value == nil then
        slot_remove(parameters, key)
        slot_remove(buffers, key)
        slot_remove(modules, key)
        fields[key] = nil
    elseif is_parameter(value) then
        slot_remove(buffers, key)
        slot_remove(modules, key)
        fields[key] = nil
        if not parameters.known[key] then
            check_name(self, "parameter", key)
        end
        slot_set(parameters, key, value)
    elseif is_module(value) then
        slot_remove(parameters, key)
        slot_remove(buffers, key)
        fields[key] = nil
        if not modules.known[key] then
            check_name(self, "module", key)
        end
        slot_set(modules, key, value)
    elseif parameters.known[key] then
        fail("cannot assign %s as parameter '%s' (nn.Parameter or nil expected)", describe(value), tostring(key))
    elseif modules.known[key] then
        fail("cannot assign %s as child module '%s' (nn.Module or nil expected)", describe(value), tostring(key))
    elseif buffers.known[key] then
        if not is_tensor(value) then
            fail("cannot assign %s as buffer '%s' (tensor or nil expected)", describe(value), tostring(key))
        end
        slot_set(buffers, key, parameter.keep(value))
    else
        fields[key] = is_tensor(value) and parameter.keep(value) or value
    end
end

local function call_hooks(self, ...)
    local inputs, n = { ... }, select("#", ...)
    for _, hook in ipairs(self._forward_pre_hooks) do
        local changed = hook.fn(self, inputs)
        if changed ~= nil then
            inputs = type(changed) == "table" and not is_module(changed) and changed or { changed }
            n = table.maxn(inputs)
        end
    end
    local output = { self:forward(unpack(inputs, 1, n)) }
    for _, hook in ipairs(self._forward_hooks) do
        local changed
        if #output <= 1 then
            changed = hook.fn(self, inputs, output[1])
        else
            changed = hook.fn(self, inputs, output)
        end
        if changed ~= nil then
            output = type(changed) == "table" and #output > 1 and changed or { changed }
        end
    end
    return unpack(output, 1, table.maxn(output))
end

local function call(self, ...)
    local fields = rawget(self, "_fields")
    if fields._forward_hooks or fields._forward_pre_hooks then
        fields._forward_hooks = fields._forward_hooks or {}
        fields._forward_pre_hooks = fields._forward_pre_hooks or {}
        return call_hooks(self, ...)
    end
    return self:forward(...)
end

local function construct(class, ...)
    local self = setmetatable({
        _class = class, _parameters = slots(), _buffers = slots(), _modules = slots(), _fields = { training = true },
    }, class._instances)
    class.__init(self, ...)
    return self
end

local function class_tostring(class)
    return "class " .. class._name
end

-- What may follow a module, for pg.complete: fields, parameters, buffers, children, methods.
local function completions(self)
    local list = {}
    for _, values in ipairs {
        rawget(self, "_fields"), rawget(self, "_parameters").values, rawget(self, "_buffers").values,
        rawget(self, "_modules").values,
    } do
        for key in pairs(values) do
            if type(key) == "string" then
                list[#list + 1] = key
            end
        end
    end
    local class = rawget(self, "_class")
    while class do
        for key in next, class do
            if type(key) == "string" then
                list[#list + 1] = key
            end
        end
        class = debug.getmetatable(class).__index
    end
    return list
end

local function define(class, name, parent)
    class._name = name
    class._instances = {
        __index = index, __newindex = newindex, __call = call,
        __tostring = function(self) return self:_repr() end,
        __names = completions,
    }
    return setmetatable(class, { __index = parent, __call = construct, __tostring = class_tostring })
end
define(Module, "Module", nil)

--- Makes a class of modules.
---@param name string what printing shows
---@param parent table? another class; default nn.Module
---@return table
function M.class(name, parent)
    if type(name) ~= "string" then
        fail("class: expected a name, got %s", describe(name))
    elseif parent ~= nil and (type(parent) ~= "table" or not parent._instances) then
        fail("class: the parent of %s must be a class of modules, got %s", name, describe(parent))
    end
    return define({}, name, parent or Module)
end

function Module.__init() end

function Module:forward()
    fail("%s has no forward", self:_get_name())
end

function Module:_get_name()
    return rawget(self, "_class") and rawget(self, "_class")._name or self._name
end

--- Is the module an instance of the class or of one that inherits from it?
---@param class table
function Module:is_a(class)
    local own = rawget(self, "_class")
    while own do
        if own == class then
            return true
        end
        local meta = getmetatable(own)
        own = meta and meta.__index
    end
    return false
end

-- ---- registration ----

--- Registers a parameter under a name; nil leaves the field empty.
function Module:register_parameter(name, value)
    check_name(self, "parameter", name)
    if value == nil then
        self[name] = nil
        return
    elseif not is_parameter(value) then
        fail("cannot assign %s as parameter '%s' (nn.Parameter or nil expected)", describe(value), name)
    end
    self[name] = value
end

--- Registers a tensor that is state but no parameter. persistent (default true): it belongs to the state dict.
---@param name string
---@param value Tensor?
---@param persistent boolean?
function Module:register_buffer(name, value, persistent)
    check_name(self, "buffer", name)
    if value ~= nil and not is_tensor(value) then
        fail("cannot assign %s as buffer '%s' (tensor or nil expected)", describe(value), name)
    end
    slot_set(rawget(self, "_buffers"), name, value and parameter.keep(value))
    local fields = rawget(self, "_fields")
    fields._non_persistent = fields._non_persistent or {}
    fields._non_persistent[name] = persistent == false or nil
end

--- Registers a submodule under a name.
function Module:register_module(name, value)
    check_name(self, "module", name)
    if not is_module(value) then
        fail("%s is not a Module", describe(value))
    end
    self[name] = value
end
Module.add_module = Module.register_module

-- ---- walking ----

local function join(prefix, name)
    return prefix == "" and name or prefix .. "." .. name
end

-- All modules below self, itself first, depth first: list of {name, module}. Each module once unless `duplicates`.
local function collect_modules(self, prefix, duplicates, seen, out)
    if not duplicates then
        if seen[self] then
            return out
        end
        seen[self] = true
    end
    out[#out + 1] = { prefix, self }
    local modules = rawget(self, "_modules")
    for _, name in ipairs(modules.names) do
        local child = modules.values[name]
        if child then
            collect_modules(child, join(prefix, name), duplicates, seen, out)
        end
    end
    return out
end

local function collect_tensors(self, store, prefix, recurse, duplicates)
    local out, seen = {}, {}
    local modules = recurse == false and { { prefix, self } } or collect_modules(self, prefix, duplicates, {}, {})
    for _, entry in ipairs(modules) do
        local s = rawget(entry[2], store)
        for _, name in ipairs(s.names) do
            local tensor = s.values[name]
            if tensor ~= nil and (duplicates or not seen[tensor.id]) then
                seen[tensor.id] = true
                out[#out + 1] = { join(entry[1], name), tensor, entry[2], name }
            end
        end
    end
    return out
end

local function entries(list)
    local i = 0
    return function()
        i = i + 1
        local entry = list[i]
        if entry then
            return entry[1], entry[2]
        end
    end
end

local function second(list)
    local out = {}
    for i, entry in ipairs(list) do
        out[i] = entry[2]
    end
    return out
end

--- The parameters, each once, in the order of registration.
---@param recurse boolean? default true: of the submodules too
---@return Tensor[]
function Module:parameters(recurse)
    return second(collect_tensors(self, "_parameters", "", recurse, false))
end

--- for name, parameter in module:named_parameters() do
---@param prefix string? put before every name, with a dot
---@param recurse boolean?
---@param remove_duplicate boolean? default true: a shared parameter comes once
function Module:named_parameters(prefix, recurse, remove_duplicate)
    return entries(collect_tensors(self, "_parameters", prefix or "", recurse, remove_duplicate == false))
end

---@return Tensor[]
function Module:buffers(recurse)
    return second(collect_tensors(self, "_buffers", "", recurse, false))
end

--- for name, buffer in module:named_buffers() do
function Module:named_buffers(prefix, recurse, remove_duplicate)
    return entries(collect_tensors(self, "_buffers", prefix or "", recurse, remove_duplicate == false))
end

local function direct_children(self)
    local out, seen, modules = {}, {}, rawget(self, "_modules")
    for _, name in ipairs(modules.names) do
        local child = modules.values[name]
        if child and not seen[child] then
            seen[child] = true
            out[#out + 1] = { name, child }
        end
    end
    return out
end

--- The direct submodules.
---@return Module[]
function Module:children()
    return second(direct_children(self))
end

--- for name, module in module:named_children() do
function Module:named_children()
    return entries(direct_children(self))
end

--- Every module, itself first.
---@return Module[]
function Module:modules()
    return second(collect_modules(self, "", false, {}, {}))
end

--- for name, module in module:named_modules() do; the module itself has the name "" (or the prefix).
function Module:named_modules(prefix)
    return entries(collect_modules(self, prefix or "", false, {}, {}))
end

--- The submodule of a dotted name: model:get_submodule("h.0.attn").
---@param target string
---@return Module
function Module:get_submodule(target)
    local current = self
    for name in target:gmatch("[^.]+") do
        local child = rawget(current, "_modules").values[name]
        if not child then
            fail("%s has no submodule %q (looking for %q)", current:_get_name(), name, target)
        end
        current = child
    end
    return current
end

--- The parameter of a dotted name.
---@param target string
---@return Tensor
function Module:get_parameter(target)
    local path, name = target:match("^(.*)%.([^.]+)$")
    local owner = path and self:get_submodule(path) or self
    local found = rawget(owner, "_parameters").values[name or target]
    if not found then
        fail("%s has no parameter %q", owner:_get_name(), name or target)
    end
    return found
end

-- ---- state ----

--- Parameters and persistent buffers by name, in order: an ordered dictionary (`sd[name]`, `for name, t in sd:iter()
-- do`). The tensors share memory with the module and carry no gradient.
---@param prefix string? put before every name, as it is
function Module:state_dict(prefix)
    local result = ordered_dict.new()
    for _, entry in ipairs(collect_modules(self, "", true, {}, {})) do
        local name, module = entry[1], entry[2]
        local non_persistent = rawget(module, "_fields")._non_persistent or {}
        for _, store in ipairs { "_parameters", "_buffers" } do
            local s = rawget(module, store)
            for _, key in ipairs(s.names) do
                if s.values[key] ~= nil and not (store == "_buffers" and non_persistent[key]) then
                    result[(prefix or "") .. join(name, key)] = s.values[key]:detach()
                end
            end
        end
    end
    return result
end

local function shape_text(tensor)
    return "[" .. table.concat(tensor.shape, ", ") .. "]"
end

local function quoted(names)
    local out = {}
    for i, name in ipairs(names) do
        out[i] = '"' .. name .. '"'
    end
    return table.concat(out, ", ")
end

--- Copies a state dict into the module's parameters and buffers, converting dtype and device.
---@param state table name -> tensor: an ordered dictionary or a plain table
---@param options table? strict (default true): missing and unexpected keys are errors
---@return table missing and unexpected: {missing_keys = {...}, unexpected_keys = {...}}
function Module:load_state_dict(state, options)
    options = check.options("load_state_dict", options, { strict = true })
    if type(state) ~= "table" then
        fail("load_state_dict: expected a table of tensors, got %s", describe(state))
    end
    local own = self:state_dict()
    local missing, unexpected, messages, copies = {}, {}, {}, {}
    for name, target in own:iter() do
        local source = rawget(state, name)
        if source == nil then
            missing[#missing + 1] = name
        elseif not is_tensor(source) then
            messages[#messages + 1] = ("While copying the parameter named \"%s\", expected a tensor, got %s."):format(
                name, describe(source))
        elseif shape_text(source) ~= shape_text(target) then
            messages[#messages + 1] = ("size mismatch for %s: copying a param with shape %s from checkpoint, "
                .. "the shape in current model is %s."):format(name, shape_text(source), shape_text(target))
        else
            copies[#copies + 1] = { target, source }
        end
    end
    if ordered_dict.is(state) then
        for name in state:iter() do
            if own[name] == nil then
                unexpected[#unexpected + 1] = name
            end
        end
    else
        for _, name in ipairs(check.sorted_keys(state)) do
            if rawget(own, name) == nil then
                unexpected[#unexpected + 1] = name
            end
        end
    end
    if options.strict then
        if #unexpected > 0 then
            table.insert(messages, 1, ("Unexpected key(s) in state_dict: %s. "):format(quoted(unexpected)))
        end
        if #missing > 0 then
            table.insert(messages, 1, ("Missing key(s) in state_dict: %s. "):format(quoted(missing)))
        end
    end
    if #messages > 0 then
        fail("Error(s) in loading state_dict for %s:\n\t%s", self:_get_name(), table.concat(messages, "\n\t"))
    end
    pg.no_grad(function()
        for _, copy in ipairs(copies) do
            copy[1]:copy_(copy[2])
        end
    end)
    return { missing_keys = missing, unexpected_keys = unexpected }
end

-- ---- modes, conversion ----

--- Sets the training mode of the module and everything below it.
---@param mode boolean? default true
---@return Module self
function Module:train(mode)
    if mode ~= nil and type(mode) ~= "boolean" then
        fail("train: the mode must be true or false, got %s", describe(mode))
    end
    for _, module in ipairs(self:modules()) do
        rawget(module, "_fields").training = mode ~= false
    end
    return self
end

--- train(false): dropout does nothing.
---@return Module self
function Module:eval()
    return self:train(false)
end

--- Calls fn with every submodule, then with the module itself.
---@param fn fun(module: Module)
---@return Module self
function Module:apply(fn)
    for _, child in ipairs(self:children()) do
        child:apply(fn)
    end
    fn(self)
    return self
end

--- Sets whether the parameters require gradients.
---@param requires_grad boolean? default true
---@return Module self
function Module:requires_grad_(requires_grad)
    for _, p in ipairs(self:parameters()) do
        p:requires_grad_(requires_grad ~= false)
    end
    return self
end

--- Drops the parameters' gradients, or fills them with zeros.
---@param set_to_none boolean? default true
function Module:zero_grad(set_to_none)
    for _, p in ipairs(self:parameters()) do
        if set_to_none ~= false then
            p.grad = nil
        else
            local grad = p.grad
            if grad ~= nil then
                grad:detach_()
                pg.no_grad(function() grad:zero_() end)
            end
        end
    end
end

-- Puts a converted tensor in the place of each that differs. A shared one stays shared.
local function convert(self, dtype, device)
    local converted = {}
    for _, store in ipairs { "_parameters", "_buffers" } do
        for _, entry in ipairs(collect_tensors(self, store, "", true, true)) do
            local old, owner, name = entry[2], entry[3], entry[4]
            local new = converted[old.id]
            if not new then
                local wanted = dtype and old.dtype.is_floating_point and dtype or old.dtype
                new = old
                if wanted ~= old.dtype or (device and device ~= old.device) then
                    new = parameter.outside_scopes(function()
                        local result = old:detach():to(device or old.device, wanted)
                        if store == "_parameters" then
                            result = parameter.Parameter(result, old.requires_grad)
                            local grad = old.grad
                            if grad ~= nil then
                                result.grad = grad:detach():to(device or old.device, wanted)
                            end
                        end
                        return result
                    end)
                end
                converted[old.id] = new
            end
            if new ~= old then
                rawget(owner, store).values[name] = new
            end
        end
    end
    return self
end

--- Moves parameters and buffers to a device and converts the floating ones to a dtype. A parameter that changes is a
-- new tensor (a tied one stays tied): make the optimizer afterwards.
---@param ... any a device, a dtype, both, a tensor (its device and dtype), or an options table with device, dtype
---@return Module self
function Module:to(...)
    local dtype, device
    for i = 1, select("#", ...) do
        local argument = select(i, ...)
        if is_tensor(argument) then
            dtype, device = argument.dtype, argument.device
        elseif pg.is_dtype(argument) then
            dtype = argument
        elseif type(argument) == "table" and (argument.dtype or argument.device) then
            local options = check.options("to", argument, { dtype = check.none, device = check.none })
            dtype, device = options.dtype or dtype, options.device or device
        elseif argument ~= nil then
            device = argument
        end
    end
    if device then
        device = pg.device(device)
    end
    if dtype and not dtype.is_floating_point then
        fail("to: a module takes floating dtypes only, got %s", tostring(dtype))
    end
    return convert(self, dtype, device)
end

function Module:float()
    return self:to(pg.float32)
end

function Module:double()
    return self:to(pg.float64)
end

function Module:half()
    return self:to(pg.float16)
end

function Module:bfloat16()
    return self:to(pg.bfloat16)
end

function Module:cpu()
    return self:to("cpu")
end

---@param device string|integer|nil the current CUDA device by default
function Module:cuda(device)
    return self:to(type(device) == "number" and ("cuda:%d"):format(device) or device or "cuda")
end

-- ---- hooks ----

local function add_hook(self, store, fn)
    if type(fn) ~= "function" then
        fail("a hook must be a function, got %s", describe(fn))
    end
    local fields = rawget(self, "_fields")
    fields[store] = fields[store] or {}
    local hook = { fn = fn }
    table.insert(fields[store], hook)
    return {
        remove = function()
            local list = fields[store] or {}
            for i, candidate in ipairs(list) do
                if candidate == hook then
                    table.remove(list, i)
                    break
                end
            end
            if #(fields._forward_hooks or {}) == 0 and #(fields._forward_pre_hooks or {}) == 0 then
                fields._forward_hooks, fields._forward_pre_hooks = nil, nil
            end
        end,
    }
end

--- fn(module, inputs, output) after every forward; what it returns replaces the output. inputs is a list; the output
-- is the value, or a list where forward returns several.
---@param fn function
---@return table handle with :remove()
function Module:register_forward_hook(fn)
    return add_hook(self, "_forward_hooks", fn)
end

--- fn(module, inputs) before every forward; what it returns (a list, or one value) replaces the inputs.
---@param fn function
---@return table handle with :remove()
function Module:register_forward_pre_hook(fn)
    return add_hook(self, "_forward_pre_hooks", fn)
end

-- ---- printing ----

--- What stands between the brackets of a module without children.
---@return string
function Module.extra_repr()
    return ""
end

local function indent(text)
    return (text:gsub("\n", "\n  "))
end
M.indent = indent

function Module:_repr()
    local extra = self:extra_repr()
    local lines, modules = {}, rawget(self, "_modules")
    for _, name in ipairs(modules.names) do
        lines[#lines + 1] = ("(%s): %s"):format(name, indent(tostring(modules.values[name])))
    end
    if #lines == 0 then
        return ("%s(%s)"):format(self:_get_name(), extra:find("\n") and "\n  " .. indent(extra) .. "\n" or extra)
    end
    if extra ~= "" then
        table.insert(lines, 1, indent(extra))
    end
    return ("%s(\n  %s\n)"):format(self:_get_name(), table.concat(lines, "\n  "))
end

return M
