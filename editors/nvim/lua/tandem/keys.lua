-- Gives keys of insert mode a meaning while ghost text is shown, and else leaves them what they were.
--
-- In: a key and what it shall do; the mappings there are.
-- Out: mappings for all buffers.
-- Never: touches a buffer's own mapping, which goes before one for all buffers.

local ghost = require("tandem.ghost")

local M = {}

---@type table<string, {raw: string, act: function}>
local bound = {}

local function mapping_of(raw)
  for _, mapping in ipairs(vim.api.nvim_get_keymap("i")) do
    if mapping.lhsraw == raw or mapping.lhsrawalt == raw then
      return mapping
    end
  end
end

-- Returns the keys that `mapping` stands for now, as Neovim works them out.
local function keys_of(mapping)
  if mapping.callback then
    local keys = mapping.callback() or ""
    return mapping.replace_keycodes == 1 and vim.keycode(keys) or keys
  end
  -- <Tab> and the like are replaced in an expression too, even inside single quotes.
  local keys = vim.keycode((mapping.rhs:gsub("<[sS][iI][dD]>", ("<SNR>%d_"):format(mapping.sid))))
  return mapping.expr == 1 and tostring(vim.api.nvim_eval(keys)) or keys
end

-- Returns a function that returns the keys to type for what `raw` was before.
local function before(raw, name)
  local mapping = mapping_of(raw)
  if not mapping then
    return function()
      return raw
    end
  elseif mapping.noremap == 0 and not (mapping.callback and mapping.expr == 0) then
    -- It may type its own key, which Neovim takes for the key itself only under its own name.
    return function()
      return keys_of(mapping)
    end
  end
  local plug = ("<Plug>(before-tandem %s)"):format(name)
  local copy = vim.tbl_extend("force", mapping, { lhs = plug, lhsraw = vim.keycode(plug) })
  copy.lhsrawalt = nil
  vim.fn.mapset("i", false, copy)
  return function()
    return copy.lhsraw
  end
end

---Makes `lhs` call `act` while ghost text is shown.
---@param lhs string|false
---@param name string
---@param act function
function M.bind(lhs, name, act)
  local desc = "Tandem: " .. name
  local raw = vim.keycode(lhs or "")
  if not lhs or (mapping_of(raw) or {}).desc == desc then
    return -- setup{} ran twice
  end
  bound[name] = { raw = raw, act = act }
  local plug = ("<Plug>(tandem %s)"):format(name)
  -- The ghost text is an undo step of its own.
  local undo_step = name ~= "dismiss" and "<C-g>u" or ""
  vim.keymap.set("i", plug, ("%s<Cmd>lua require('tandem.keys').press('%s')<CR>"):format(undo_step, name))
  local keys = before(raw, name)
  -- With `remap`, a key that types itself is not mapped again, but ends an abbreviation as an unmapped one does.
  vim.keymap.set("i", lhs, function()
    return ghost.stands() and vim.keycode(plug) or keys()
  end, { expr = true, replace_keycodes = false, remap = true, desc = desc })
end

---Does what the key called `name` is for. Neovim looks up mappings before it inserts the characters typed just
---before, so the ghost text may be gone by now; then the key is typed again.
---@param name string
function M.press(name)
  if ghost.stands() then
    bound[name].act()
  else
    vim.api.nvim_feedkeys(bound[name].raw, "im", false)
  end
end

return M
